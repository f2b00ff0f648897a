"""Documents out of a Lucene index, hits in and hits out, a searcher that reranks: with real Lucene and Faiss."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import InputError, MissingDocuments
from mixlm_rerank.integrations.lucene import build_lucene_index, open_searcher
from mixlm_rerank.integrations.pyserini import LuceneCorpus, LuceneTexts, RerankingSearcher, rerank_hits

QUERIES = ["dog moon", "mail man", "cats that sleep", "the moon and the earth", "salt and yeast", "a dog fears mail"]
LACKING = {"d1", "d6"}


@pytest.fixture(scope="module")
def reranking(searcher: Any, reranker: Reranker) -> RerankingSearcher:
    return RerankingSearcher(searcher, reranker, depth=6)


@pytest.fixture(scope="module")
def partial(model: MixLM, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> TokenIndex:
    """An index of tokens that lacks two of the documents."""
    kept = [document for document in documents if document.docid not in LACKING]
    return TokenIndex.build(kept, model, tmp_path_factory.mktemp("tokens") / "partial", progress=False)


@pytest.fixture(scope="module")
def faiss_searcher(model: MixLM, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A FaissSearcher over the documents' last embedding tokens."""
    import faiss
    from pyserini.search.faiss import FaissSearcher

    folder = tmp_path_factory.mktemp("faiss")
    vectors = model.encode([document.content for document in documents])[:, -1]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "index"))
    (folder / "docid").write_text("".join(f"{document.docid}\n" for document in documents))
    encoder = SimpleNamespace(encode=lambda query: model.item_encoder.embed_queries([query])[0].numpy())
    return FaissSearcher(str(folder), encoder)


def lucene_index(folder: Path, options: list[str], **document: str) -> Path:
    """An index of one document, made by Pyserini's own means."""
    from pyserini.index.lucene import LuceneIndexer

    indexer = LuceneIndexer(args=["-index", str(folder), *options], threads=1)
    indexer.add_doc_raw(json.dumps(document))
    indexer.close()
    return folder


def ids(hits: Any) -> list[str]:
    return [hit.docid for hit in hits]


# Documents out of a Lucene index


def test_a_lucene_corpus_is_the_corpus_that_was_indexed(lucene: Path, documents: list[Document]) -> None:
    corpus = LuceneCorpus(lucene)
    assert list(corpus) == documents
    assert list(corpus) == documents  # and again: a build looks twice


def test_odd_characters_survive(tmp_path: Path) -> None:
    odd = [
        Document("ü/1 %", 'quotes " and \\ and\nlines\t', title="Ärger 🐕"),
        Document("2", "{}"),
        Document("3", "[1]"),
    ]
    build_lucene_index(odd, tmp_path / "index")
    assert list(LuceneCorpus(tmp_path / "index")) == odd


def test_deleted_documents_are_not_in_the_corpus(tmp_path: Path, documents: list[Document]) -> None:
    build_lucene_index(documents, tmp_path / "index")
    from jnius import autoclass

    settings = autoclass("org.apache.lucene.index.IndexWriterConfig")()
    settings.setMergePolicy(autoclass("org.apache.lucene.index.NoMergePolicy").INSTANCE)
    directory = autoclass("org.apache.lucene.store.FSDirectory").open(
        autoclass("java.io.File")(f"{tmp_path}/index").toPath()
    )
    writer = autoclass("org.apache.lucene.index.IndexWriter")(directory, settings)
    writer.updateDocuments(autoclass("org.apache.lucene.index.Term")("id", "d2"), autoclass("java.util.ArrayList")())
    writer.close()
    assert list(LuceneCorpus(tmp_path / "index")) == [document for document in documents if document.docid != "d2"]


@pytest.mark.parametrize("options", [["-storeRaw"], ["-storeContents"]])
def test_an_index_made_by_pyserini_will_do_if_it_stores_documents(tmp_path: Path, options: list[str]) -> None:
    folder = lucene_index(tmp_path / "index", options, id="x", contents="a dog")
    assert list(LuceneCorpus(folder)) == [Document("x", "a dog")]
    assert LuceneTexts(open_searcher(folder))(["x"]) == {"x": "a dog"}


def test_an_index_without_stored_documents_is_refused(tmp_path: Path) -> None:
    folder = lucene_index(tmp_path / "index", [], id="x", contents="a dog")
    told = r"does not store its documents \('x'\): build it with --storeRaw, or with mixlm-rerank bm25 index"
    with pytest.raises(InputError, match=told):
        list(LuceneCorpus(folder))
    with pytest.raises(InputError, match=told):
        LuceneTexts(open_searcher(folder))(["x"])


def test_lucene_texts_are_what_the_item_encoder_reads(searcher: Any, documents: list[Document]) -> None:
    texts = LuceneTexts(searcher, threads=2)
    assert texts(["d2", "unknown", "d3"]) == {"d2": documents[1].content, "d3": documents[2].content}


# Hits in, hits out


@pytest.mark.parametrize("query", QUERIES)
def test_hits_come_out_in_the_order_of_the_reranker(searcher: Any, reranker: Reranker, query: str) -> None:
    hits = searcher.search(query, k=6)
    before = [(hit.docid, hit.score) for hit in hits]
    expected = reranker.rerank(query, before)
    found = rerank_hits(reranker, query, hits)
    assert [(hit.docid, hit.score, hit.rank, hit.first_stage_score) for hit in found] == [
        (doc.docid, doc.score, doc.rank, doc.first_stage_score) for doc in expected
    ]
    assert ids(rerank_hits(reranker, query, hits, k=2)) == ids(found)[:2]
    assert [(hit.docid, hit.score) for hit in hits] == before  # the caller's hits stay as they were


def test_a_reranked_hit_has_all_that_the_first_stages_hit_had(searcher: Any, reranker: Reranker) -> None:
    hits = searcher.search("dog moon", k=3)
    for hit in rerank_hits(reranker, "dog moon", hits):
        (first,) = [first for first in hits if first.docid == hit.docid]
        assert json.loads(hit.lucene_document.get("raw"))["id"] == hit.docid
        assert hit.lucene_docid == first.lucene_docid
        assert hit.first_stage_score == first.score
        assert copy.copy(hit).docid == hit.docid
        with pytest.raises(AttributeError, match="colour"):
            _ = hit.colour


# A searcher that reranks


def test_it_fetches_more_than_it_returns(searcher: Any, reranker: Reranker, reranking: RerankingSearcher) -> None:
    """The best of ``depth`` may come from below the first stage's k."""
    query = next(
        q for q in QUERIES if rerank_hits(reranker, q, searcher.search(q, 6))[0].docid != searcher.search(q)[0].docid
    )
    assert ids(reranking.search(query, k=1)) == ids(rerank_hits(reranker, query, searcher.search(query, 6), 1))
    assert ids(RerankingSearcher(searcher, reranker, depth=1).search(query, k=1)) == ids(searcher.search(query, 1))
    assert set(ids(RerankingSearcher(searcher, reranker, depth=1).search(query, k=3))) == set(
        ids(searcher.search(query, 3))
    )


def test_the_first_stages_order_is_fused_in(searcher: Any, model: MixLM, reranker: Reranker) -> None:
    fusing = Reranker(model, reranker.index, first_stage_weight="rrf")
    found = RerankingSearcher(searcher, fusing, depth=6).search("dog moon", k=6)
    first = [(hit.docid, hit.score) for hit in searcher.search("dog moon", k=6)]
    alone = [doc.docid for doc in reranker.rerank("dog moon", first)]
    expected = {docid: 1 / (60 + n) + 1 / (61 + alone.index(docid)) for n, (docid, _) in enumerate(first, 1)}
    assert {hit.docid: hit.score for hit in found} == pytest.approx(expected)


def test_batch_search_equals_search(reranking: RerankingSearcher) -> None:
    queries = [*QUERIES, "zebra"]
    qids = [f"q{number}" for number in range(len(queries))]
    found = reranking.batch_search(queries, qids, k=3, threads=2)
    assert list(found) == qids
    for qid, query in zip(qids, queries, strict=True):
        alone = reranking.search(query, k=3)
        assert ids(found[qid]) == ids(alone)
        assert [hit.score for hit in found[qid]] == pytest.approx([hit.score for hit in alone], abs=1e-4)
    assert found[qids[-1]] == [] == reranking.search("zebra")


def test_an_empty_query_finds_nothing(searcher: Any, reranking: RerankingSearcher) -> None:
    """As in Pyserini."""
    assert searcher.search("", 3) == [] == reranking.search("", 3)
    found = reranking.batch_search(["", "dog moon", " "], ["1", "2", "3"], k=3)
    assert {qid: ids(hits) for qid, hits in found.items()} == {
        "1": [],
        "2": ids(reranking.search("dog moon", 3)),
        "3": [],
    }
    assert reranking.batch_search([""], ["1"]) == {"1": []}


def test_all_else_is_the_first_stages(searcher: Any, reranking: RerankingSearcher) -> None:
    assert reranking.num_docs == searcher.num_docs
    assert reranking.doc("d1").raw() == searcher.doc("d1").raw()
    assert reranking.doc("unknown") is None
    assert ids(reranking.search("dogs", fields={"contents": 1.0})) == ids(reranking.search("dogs"))
    assert ids(reranking.search("dogs", 10, None, {"contents": 1.0})) == ids(reranking.search("dogs"))  # by position
    assert reranking.search("dogs", fields={"title": 1.0}) == []  # the index has no such field
    with pytest.raises(InputError, match="give a string, not a dict"):
        reranking.search({"text": "dogs"})  # type: ignore[arg-type]
    assert copy.copy(reranking).depth == reranking.depth
    with pytest.raises(AttributeError, match="colour"):
        _ = reranking.colour


def test_one_string_in_the_place_of_several_is_refused(searcher: Any, reranking: RerankingSearcher) -> None:
    for queries, qids in (("dog", ["1", "2", "3"]), (["a", "b"], "12")):
        with pytest.raises(InputError, match="must be a list of strings, not one string"):
            reranking.batch_search(queries, qids)
    with pytest.raises(InputError, match="docids must be a list of strings"):
        LuceneTexts(searcher)("d1")


def test_a_depth_of_zero_is_refused(searcher: Any, reranker: Reranker) -> None:
    with pytest.raises(InputError, match="depth must be at least 1, not 0"):
        RerankingSearcher(searcher, reranker, depth=0)
    with pytest.raises(InputError, match="depth must be a whole number, not 2.5"):
        RerankingSearcher(searcher, reranker, depth=2.5)  # type: ignore[arg-type]


def test_it_reranks_faiss_hits_too(faiss_searcher: Any, reranker: Reranker, documents: list[Document]) -> None:
    over = RerankingSearcher(faiss_searcher, reranker, depth=len(documents))
    best = ids(reranker.rerank(QUERIES[0], [document.docid for document in documents], 3))
    assert ids(over.search(QUERIES[0], k=3)) == best
    assert ids(over.batch_search(QUERIES[:2], ["1", "2"], k=3)["1"]) == best


def test_it_stands_in_a_hybrid_searcher(faiss_searcher: Any, reranking: RerankingSearcher) -> None:
    from pyserini.search.hybrid import HybridSearcher

    hybrid = HybridSearcher(faiss_searcher, reranking)
    sparse = reranking.search(QUERIES[0], k=6)
    found = hybrid.search(QUERIES[0], k0=6, k=6, alpha=0, weight_on_dense=True)  # the sparse side alone
    assert len(found) == 6 and len(sparse) > 2
    assert ids(found)[: len(sparse) - 1] == ids(sparse)[:-1]  # the last one ties with those that it did not find
    assert [hit.score for hit in found][: len(sparse)] == pytest.approx([hit.score for hit in sparse])
    assert ids(hybrid.batch_search(QUERIES[:1], ["1"], k0=6, k=3, alpha=0, weight_on_dense=True)["1"]) == ids(found)[:3]


def test_it_reranks_a_hybrid_searchers_hits(
    faiss_searcher: Any, searcher: Any, reranker: Reranker, documents: list[Document]
) -> None:
    from pyserini.search.hybrid import HybridSearcher

    over = RerankingSearcher(HybridSearcher(faiss_searcher, searcher), reranker, depth=len(documents))
    best = ids(reranker.rerank(QUERIES[0], [document.docid for document in documents]))
    assert ids(over.search(QUERIES[0], k=6, k0=6)) == best
    assert ids(over.batch_search(QUERIES[:2], ["1", "2"], k=3, k0=6)["1"]) == best[:3]


# An index of tokens that lacks documents


def test_missing_last(searcher: Any, model: MixLM, partial: TokenIndex, reranker: Reranker) -> None:
    query = "a dog fears mail at the moon"
    hits = searcher.search(query, k=6)
    found = RerankingSearcher(searcher, Reranker(model, partial, missing="last"), depth=6).search(query)
    lacking = [docid for docid in ids(hits) if docid in LACKING]
    present = [docid for docid in ids(rerank_hits(reranker, query, hits)) if docid not in LACKING]
    assert set(lacking) == LACKING and present
    assert ids(found) == present + lacking
    assert [hit.missing for hit in found] == [False] * len(present) + [True] * len(lacking)


def test_missing_error(searcher: Any, model: MixLM, partial: TokenIndex) -> None:
    with pytest.raises(MissingDocuments) as caught:
        RerankingSearcher(searcher, Reranker(model, partial, missing="error"), depth=6).search("dog mail")
    assert set(caught.value.docids) == LACKING


def test_missing_encode_reads_the_texts_from_lucene(
    searcher: Any, model: MixLM, partial: TokenIndex, reranking: RerankingSearcher
) -> None:
    """Encoded now or in advance: the same hits, the same scores."""
    encoding = Reranker(model, partial, missing="encode", texts=LuceneTexts(searcher))
    over = RerankingSearcher(searcher, encoding, depth=6)
    for query in QUERIES:
        now, advance = over.search(query), reranking.search(query)
        assert ids(now) == ids(advance)
        assert [hit.score for hit in now] == pytest.approx([hit.score for hit in advance], abs=1e-5)
        assert not any(hit.missing for hit in now)
