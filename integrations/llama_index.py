"""LlamaIndex: a node postprocessor that reranks. docs/integrations/llama-index.md has an example that runs.

The docid of a node is ``metadata[docid_key]``, else its ``node_id``. The postprocessor returns the same nodes in new
NodeWithScore objects, scored by log-odds. A node is copied if its metadata changes: ``keep_retrieval_score`` adds
``retrieval_score``, and a node that was not scored gets ``missing: True``.
"""

from __future__ import annotations

from typing import Any

from mixlm_rerank.documents import docid_in, marked, rank_documents
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import ScoredDoc

with optional_import("this needs LlamaIndex", "llama-index"):
    from llama_index.core.bridge.pydantic import ConfigDict, Field
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

__all__ = ["MixLMRerank"]


class MixLMRerank(BaseNodePostprocessor):
    """Reranks retrieved nodes.

    Attributes:
        reranker: a reranker with an index looks docids up; one without encodes texts.
        top_n: how many to keep; all for ``None``.
        docid_key: the key of the docid in the metadata.
        keep_retrieval_score: put the retriever's score into the metadata.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Any = Field(exclude=True)
    top_n: int | None = Field(default=None, ge=1)
    docid_key: str = "docid"
    keep_retrieval_score: bool = False

    def __init__(self, reranker: Reranker, **options: Any) -> None:
        super().__init__(**{"reranker": reranker, **options})

    @classmethod
    def class_name(cls) -> str:
        return "MixLMRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("the ranker reads the query's text: give query_bundle or query_str")
        texts = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        docids = [docid_in(node.node.metadata, self.docid_key, node.node.node_id) for node in nodes]
        ranked = rank_documents(self.reranker, query_bundle.query_str, texts, docids, [node.score for node in nodes])
        return [self._scored(nodes[place], doc) for place, doc in ranked[: self.top_n]]

    def _scored(self, node: NodeWithScore, doc: ScoredDoc) -> NodeWithScore:
        inner = node.node
        kept = {"retrieval_score": node.score} if self.keep_retrieval_score else {}
        if kept or doc.missing:
            inner = inner.model_copy(update={"metadata": marked(inner.metadata, doc, **kept)})
        return NodeWithScore(node=inner, score=doc.score)
