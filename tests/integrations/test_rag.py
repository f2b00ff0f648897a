"""LangChain, LlamaIndex, Haystack, rerankers: what each of them expects beside the ranking."""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from haystack import Document as HaystackDocument
from haystack import Pipeline
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import ValidationError
from rerankers.documents import Document as RerankersDocument

from mixlm_rerank import Candidate, Document, MixLM, Reranker
from mixlm_rerank.errors import InputError, MissingDocuments
from mixlm_rerank.integrations.haystack import MixLMRanker
from mixlm_rerank.integrations.langchain import MixLMCompressor
from mixlm_rerank.integrations.llama_index import MixLMRerank
from mixlm_rerank.integrations.rerankers import MixLMRanker as RerankersRanker

QUERY = "a dog barks at the moon"


@pytest.fixture
def order(reranker: Reranker, documents: list[Document]) -> list[str]:
    return [doc.docid for doc in reranker.rerank(QUERY, [document.docid for document in documents])]


@pytest.fixture
def by_metadata(documents: list[Document]) -> list[LangChainDocument]:
    return [LangChainDocument(page_content="not read", metadata={"docid": doc.docid}) for doc in documents]


def test_langchain_keeps_the_best(reranker: Reranker, by_metadata: list[LangChainDocument], order: list[str]) -> None:
    best = MixLMCompressor(reranker=reranker, top_n=3).compress_documents(by_metadata, QUERY)
    assert [document.metadata["docid"] for document in best] == order[:3]
    second, third = (document.metadata["relevance_score"] for document in best[1:])
    between = (second + third) / 2
    kept = MixLMCompressor(reranker=reranker, score_threshold=between).compress_documents(by_metadata, QUERY)
    assert [document.metadata["docid"] for document in kept] == order[:2]
    json.dumps([document.metadata for document in kept])
    with pytest.raises(ValidationError):
        MixLMCompressor(reranker=reranker, top_n=0)


def test_langchain_in_a_chain(reranker: Reranker, by_metadata: list[LangChainDocument], order: list[str]) -> None:
    """As a step of a runnable sequence, synchronous and not."""
    from langchain_core.runnables import RunnableLambda

    compressor = MixLMCompressor(reranker=reranker)
    chain = RunnableLambda(lambda query: (query, by_metadata)) | (
        lambda pair: compressor.compress_documents(pair[1], pair[0])
    )
    assert [document.metadata["docid"] for document in chain.invoke(QUERY)] == order
    assert [document.metadata["docid"] for document in asyncio.run(chain.ainvoke(QUERY))] == order


def test_langchain_documents_without_ids_are_told(reranker: Reranker) -> None:
    documents = [LangChainDocument(page_content="a text")]
    with pytest.raises(InputError, match=r'document 0 has no docid, .* \(missing="last"\): name the docids'):
        MixLMCompressor(reranker=reranker).compress_documents(documents, QUERY)


def test_chunks_of_one_document_share_its_score(reranker: Reranker) -> None:
    chunks = [LangChainDocument(page_content=text, metadata={"docid": "d1"}) for text in ("one", "two")]
    first, second = MixLMCompressor(reranker=reranker).compress_documents(chunks, QUERY)
    assert (first.page_content, second.page_content) == ("one", "two")
    assert first.metadata["relevance_score"] == second.metadata["relevance_score"]


@pytest.mark.parametrize("score", [None, float("nan")])
def test_llama_index_by_node_id_and_by_metadata(reranker: Reranker, order: list[str], score: float | None) -> None:
    nodes = [NodeWithScore(node=TextNode(text="not read", id_=docid), score=score) for docid in sorted(order)]
    best = MixLMRerank(reranker, top_n=3).postprocess_nodes(nodes, QueryBundle(QUERY))
    assert [node.node.node_id for node in best] == order[:3]
    nodes = [NodeWithScore(node=TextNode(text="", metadata={"key": docid}), score=1.0) for docid in sorted(order)]
    best = asyncio.run(MixLMRerank(reranker, docid_key="key").apostprocess_nodes(nodes, query_str=QUERY))
    assert [node.node.metadata["key"] for node in best] == order
    with pytest.raises(InputError, match="give query_bundle or query_str"):
        MixLMRerank(reranker).postprocess_nodes(nodes)


@pytest.fixture
def ranker(model: MixLM, reranker: Reranker, tmp_path: Path) -> MixLMRanker:
    model.save_pretrained(tmp_path / "model")
    return MixLMRanker(str(tmp_path / "model"), str(reranker.index), device="cpu")


def test_haystack_in_a_pipeline_written_and_read(ranker: MixLMRanker, order: list[str]) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    trusted = {"allowed_modules": ["mixlm_rerank.integrations.haystack"]}
    asked = "allowed_modules" in inspect.signature(Pipeline.loads).parameters  # from Haystack 3 on
    again = Pipeline.loads(pipeline.dumps(), **(trusted if asked else {}))
    again.warm_up()
    given = [HaystackDocument(content="not read", meta={"docid": docid}, score=0.5) for docid in sorted(order)]
    found = again.run({"ranker": {"query": QUERY, "documents": given, "top_k": 2}})["ranker"]["documents"]
    assert [document.meta["docid"] for document in found] == order[:2]
    assert [document.score for document in given] == [0.5] * len(given)
    assert all(type(document.score) is float for document in found)


def test_haystack_scales_and_cuts(ranker: MixLMRanker, order: list[str]) -> None:
    given = [HaystackDocument(id=docid, content="not read") for docid in order]
    plain = ranker.run(QUERY, given)["documents"]
    scaled = ranker.run(QUERY, given, scale_score=True)["documents"]
    assert [document.id for document in scaled] == [document.id for document in plain]
    assert all(0 <= document.score <= 1 for document in scaled)
    between = (plain[2].score + plain[3].score) / 2
    kept = ranker.run(QUERY, given, score_threshold=between)["documents"]
    assert [document.id for document in kept] == [document.id for document in plain[:3]]
    assert ranker.run(QUERY, [])["documents"] == []
    with pytest.raises(InputError, match="top_k must be at least 1, not 0"):
        ranker.run(QUERY, given, top_k=0)
    with pytest.raises(InputError, match="top_k must be a whole number, not 2.5"):
        ranker.run(QUERY, given, top_k=2.5)


def test_haystack_documents_that_hold_no_text(ranker: MixLMRanker) -> None:
    """Looked up by id; not there: last, or an error."""
    found = ranker.run(QUERY, [HaystackDocument(id="x"), HaystackDocument(id="d1")])["documents"]
    assert [document.id for document in found] == ["d1", "x"]
    strict = MixLMRanker(ranker.model, ranker.index, "error", device="cpu")
    with pytest.raises(MissingDocuments, match="lacks candidates: 'x'"):
        strict.run(QUERY, [HaystackDocument(id="x")])


def test_rerankers_takes_texts_or_documents_with_ids(
    reranker: Reranker, documents: list[Document], order: list[str]
) -> None:
    by_text = RerankersRanker(Reranker(reranker.model))
    texts = [document.content for document in documents]
    ranked = by_text.rank(QUERY, texts)
    assert [documents[result.doc_id].docid for result in ranked] == order
    assert [result.rank for result in ranked] == list(range(1, len(order) + 1))
    assert by_text.score(QUERY, texts[0]) == pytest.approx(ranked.get_score_by_docid(0), abs=1e-4)
    by_docid = RerankersRanker(reranker)
    given = [RerankersDocument("not read", doc_id=docid, metadata={"n": 1}) for docid in sorted(order)]
    found = asyncio.run(by_docid.rank_async(QUERY, given))
    assert [result.doc_id for result in found] == order and found[0].document.metadata == {"n": 1}
    with pytest.raises(InputError, match="document 0 has no docid"):
        by_docid.rank(QUERY, texts)
    assert by_text.rank(QUERY, []).results == []


def test_without_an_index_every_text_is_read(model: MixLM) -> None:
    """Though a splitter gave all chunks of a document its docid."""
    texts = ["salt and yeast", "a dog barks at the moon"]
    docs = {
        doc.docid: doc.score for doc in Reranker(model).rerank(QUERY, [Candidate(text, 0.0, text) for text in texts])
    }
    given = [LangChainDocument(page_content=text, metadata={"docid": "same"}) for text in texts]
    found = MixLMCompressor(reranker=Reranker(model)).compress_documents(given, QUERY)
    assert {doc.page_content: doc.metadata["relevance_score"] for doc in found} == pytest.approx(docs, abs=1e-5)
    assert docs[texts[0]] != docs[texts[1]]


@pytest.mark.parametrize("nothing", [None, "", float("nan"), np.float32("nan"), pd.NA, pd.NaT], ids=repr)
def test_an_empty_docid_in_the_metadata_is_none(reranker: Reranker, order: list[str], nothing: object) -> None:
    given = [LangChainDocument(page_content="", id=docid, metadata={"docid": nothing}) for docid in sorted(order)]
    assert [doc.id for doc in MixLMCompressor(reranker=reranker).compress_documents(given, QUERY)] == order


def test_what_was_not_scored_is_marked(reranker: Reranker, ranker: MixLMRanker) -> None:
    """One mark, in each framework's metadata, of copies; and a score that nobody takes for log-odds."""
    given = {"d1": {"name": "known"}, "x": {"name": "unknown"}}
    marked = [{"name": "known"}, {"name": "unknown", "missing": True}]

    lang = [LangChainDocument(page_content="", id=docid, metadata=own) for docid, own in given.items()]
    first, last = [doc.metadata for doc in MixLMCompressor(reranker=reranker).compress_documents(lang, QUERY)]
    assert first.pop("relevance_score") > -100 and last.pop("relevance_score") < -10_000
    assert [first, last] == marked

    nodes = [NodeWithScore(node=TextNode(text="", id_=docid, metadata=own)) for docid, own in given.items()]
    found = MixLMRerank(reranker).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.node.metadata for node in found] == marked and found[1].score < -10_000

    hay = [HaystackDocument(id=docid, content="", meta=own) for docid, own in given.items()]
    assert [document.meta for document in ranker.run(QUERY, hay)["documents"]] == marked

    plain = [RerankersDocument("", doc_id=docid, metadata=own) for docid, own in given.items()]
    assert [result.document.metadata for result in RerankersRanker(reranker).rank(QUERY, plain)] == marked
    assert given == {"d1": {"name": "known"}, "x": {"name": "unknown"}}  # the caller's own stay as they were


def test_one_docid_in_the_place_of_several_is_refused(reranker: Reranker) -> None:
    with pytest.raises(InputError, match=r"doc_ids must be a list of strings, not one string: \['d1'\]"):
        RerankersRanker(reranker).rank(QUERY, ["one", "two"], doc_ids="d1")


def test_ids_that_the_index_has_never_seen_are_warned_of(reranker: Reranker) -> None:
    nodes = [NodeWithScore(node=TextNode(text="a dog"))]  # its id is made up
    with pytest.warns(UserWarning, match="none of the candidates was scored: .* holds none of them"):
        MixLMRerank(reranker).postprocess_nodes(nodes, query_str=QUERY)


def test_haystack_scales_what_is_missing_to_zero(ranker: MixLMRanker, order: list[str]) -> None:
    given = [HaystackDocument(id=docid, content="not read") for docid in [*order, "unknown"]]
    scores = [document.score for document in ranker.run(QUERY, given, scale_score=True)["documents"]]
    assert scores[-1] == 0.0 and min(scores[:-1]) > 0.0


def test_concurrent_calls(model: MixLM) -> None:
    """Each gets its own documents' scores."""
    compressor = MixLMCompressor(reranker=Reranker(model))
    texts = [f"a dog {'barks ' * number}" for number in range(12)]
    given = [[LangChainDocument(page_content=text) for text in texts[number:]] for number in range(8)]

    async def together() -> list[list[LangChainDocument]]:
        return await asyncio.gather(*(compressor.acompress_documents(each, QUERY) for each in given))

    alone = [compressor.compress_documents(each, QUERY) for each in given]
    for found, expected in zip(asyncio.run(together()), alone, strict=True):
        assert [doc.page_content for doc in found] == [doc.page_content for doc in expected]
