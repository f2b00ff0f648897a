"""LangChain: a document compressor that reranks. docs/integrations/langchain.md has an example that runs.

The docid of a document is ``metadata[docid_key]``, else its ``id``. The compressor returns copies, with two additions
to the metadata: the log-odds as ``relevance_score``, and ``missing: True`` if the document was not scored.
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
    """Reranks the documents of a retriever. Also works asynchronously (in a thread).

    Attributes:
        reranker: a reranker with an index looks docids up; one without encodes texts.
        top_n: how many to keep; all for ``None``.
        score_threshold: keep only documents with at least these log-odds. Calibrate the model first
            (docs/thresholds.md): otherwise most unrelated documents may be above 0.
        docid_key: the key of the docid in the metadata.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_n: int | None = Field(default=None, ge=1)
    score_threshold: float | None = None
    docid_key: str = "docid"

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The documents, best first. Raises InputError for one without docid if texts are not encoded."""
        docids = [docid_in(document.metadata, self.docid_key, document.id) for document in documents]
        ranked = rank_documents(self.reranker, query, [document.page_content for document in documents], docids)
        least = self.score_threshold
        best = [(documents[at], doc) for at, doc in ranked if least is None or (doc.score >= least and not doc.missing)]
        return [
            document.model_copy(update={"metadata": marked(document.metadata, doc, relevance_score=doc.score)})
            for document, doc in best[: self.top_n]
        ]
