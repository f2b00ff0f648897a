"""Each library's way to rerank, brought to one form: documents in, (docid, score) out, best first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex

Ranked = list[tuple[str, float]]


@dataclass(frozen=True)
class Job:
    """What a seam is asked: by docid where there is an index, else by text."""

    model: MixLM
    index: TokenIndex | None
    query: str
    documents: Sequence[Document]
    missing: str | None = None

    @property
    def reranker(self) -> Reranker:
        return Reranker(self.model, self.index, missing=self.missing)  # type: ignore[arg-type]


def cross_encoder(job: Job) -> Ranked:
    from sentence_transformers import CrossEncoder

    from mixlm_rerank.integrations.sentence_transformers import Docid, MixLMModule

    encoder = CrossEncoder(modules=[MixLMModule(job.model, job.index)], device="cpu")
    given = [Docid(document.docid) if job.index else document.content for document in job.documents]
    ranked = encoder.rank(job.query, given, activation_fn=torch.nn.Identity()) if given else []
    return [(job.documents[hit["corpus_id"]].docid, hit["score"]) for hit in ranked]


def langchain(job: Job) -> Ranked:
    from mixlm_rerank.integrations.langchain import MixLMCompressor

    found = MixLMCompressor(reranker=job.reranker).compress_documents(langchain_documents(job), job.query)
    return [(document.metadata["name"], document.metadata["relevance_score"]) for document in found]


def langchain_async(job: Job) -> Ranked:
    from mixlm_rerank.integrations.langchain import MixLMCompressor

    compressor = MixLMCompressor(reranker=job.reranker, docid_key="key")
    found = asyncio.run(compressor.acompress_documents(langchain_documents(job), job.query))
    return [(document.metadata["name"], document.metadata["relevance_score"]) for document in found]


def langchain_documents(job: Job) -> list[Any]:
    from langchain_core.documents import Document as Their

    return [
        Their(
            page_content=document.content,
            id=document.docid if job.index else None,
            metadata={"name": document.docid, "other": [1, 2]},
        )
        for document in job.documents
    ]


def llama_index(job: Job) -> Ranked:
    from mixlm_rerank.integrations.llama_index import MixLMRerank

    found = MixLMRerank(job.reranker).postprocess_nodes(llama_index_nodes(job), query_str=job.query)
    return [(node.node.node_id, node.score) for node in found]


def llama_index_nodes(job: Job) -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    return [
        NodeWithScore(node=TextNode(text=document.content, id_=document.docid), score=float(100 - place))
        for place, document in enumerate(job.documents)
    ]


def haystack(job: Job) -> Ranked:
    from haystack import Document as Their

    from mixlm_rerank.integrations.haystack import MixLMRanker

    ranker = MixLMRanker(job.model.name, job.index and str(job.index.path), job.missing, device="cpu")  # type: ignore[arg-type]
    given = [Their(id=document.docid, content=document.content) for document in job.documents]
    return [(document.id, document.score) for document in ranker.run(job.query, given)["documents"]]


def rerankers(job: Job) -> Ranked:
    from mixlm_rerank.integrations.rerankers import MixLMRanker

    texts = [document.content for document in job.documents]
    docids = [document.docid for document in job.documents]
    ranked = MixLMRanker(job.reranker).rank(job.query, texts, doc_ids=docids)
    return [(result.doc_id, result.score) for result in ranked]


def pyterrier(job: Job) -> Ranked:
    import pandas as pd

    from mixlm_rerank.integrations.pyterrier import MixLMReranker

    frame = pd.DataFrame(
        [("q", job.query, document.docid, document.content) for document in job.documents],
        columns=["qid", "query", "docno", "text"],
    )
    if job.index:
        frame = frame.drop(columns="text")
    ranked = MixLMReranker(job.reranker)(frame).sort_values("rank")
    return list(zip(ranked["docno"].tolist(), ranked["score"].tolist(), strict=True))


def beir(job: Job) -> Ranked:
    from mixlm_rerank.integrations.beir import MixLMRerank

    corpus = {document.docid: {"title": document.title, "text": document.text} for document in job.documents}
    first = {document.docid: float(-place) for place, document in enumerate(job.documents)}
    found = MixLMRerank(job.reranker).rerank({} if job.index else corpus, {"q": job.query}, {"q": first}, 10_000)
    return list(found["q"].items())


def beir_pairs(job: Job) -> Ranked:
    """By text, under BEIR's own class: it sets title and text side by side."""
    from beir.reranking import Rerank

    from mixlm_rerank.integrations.beir import PairScorer

    corpus = {document.docid: {"text": document.content} for document in job.documents}
    first = {document.docid: float(-place) for place, document in enumerate(job.documents)}
    found = Rerank(PairScorer(job.model)).rerank(corpus, {"q": job.query}, {"q": first}, 10_000)["q"]
    return sorted(found.items(), key=lambda item: -item[1])


# seam -> (by docid?, by text?)
SEAMS: dict[Callable[[Job], Ranked], tuple[bool, bool]] = {
    cross_encoder: (True, True),
    langchain: (True, True),
    langchain_async: (True, True),
    llama_index: (True, True),
    haystack: (True, True),
    rerankers: (True, True),
    pyterrier: (True, True),
    beir: (True, True),
    beir_pairs: (False, True),
}
