"""LangChain: a document compressor that reranks. docs/integrations/langchain.md has an example that runs.

The docid of a document is ``metadata[docid_key]``, else its ``id``. What comes back are copies: the metadata as it was,
with the log-odds under ``relevance_score``, and ``missing: True`` where a document was not scored.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixlm_rerank.documents import docid_in, marked, rank_documents
from mixlm_rerank.errors import optional_import
from mixlm_rerank.reranker import Reranker

with optional_import("this needs LangChain", "langchain"):
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

__all__ = ["MixLMCompressor"]


class MixLMCompressor(BaseDocumentCompressor):
    """Documents of a retriever, best first. Also asynchronous (in a thread).

    Attributes:
        reranker: with an index, to look docids up; without, to encode texts.
        top_n: how many to keep; all for ``None``.
        score_threshold: keep only documents with at least these log-odds. Calibrate the model first
            (docs/thresholds.md): else most unrelated documents can be above 0.
        docid_key: where the metadata holds the docid.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_n: int | None = Field(default=None, ge=1)
    score_threshold: float | None = None
    docid_key: str = "docid"

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Raises InputError for a document without docid where texts are not encoded."""
        docids = [docid_in(document.metadata, self.docid_key, document.id) for document in documents]
        ranked = rank_documents(self.reranker, query, [document.page_content for document in documents], docids)
        least = self.score_threshold
        best = [(documents[at], doc) for at, doc in ranked if least is None or (doc.score >= least and not doc.missing)]
        return [
            document.model_copy(update={"metadata": marked(document.metadata, doc, relevance_score=doc.score)})
            for document, doc in best[: self.top_n]
        ]
