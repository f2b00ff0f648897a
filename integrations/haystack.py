"""Haystack: a ranker component. docs/integrations/haystack.md has an example that runs.

The docid of a document is ``meta[docid_key]``, else its ``id``. The ranker returns copies with the new score: log-odds,
or with ``scale_score`` their sigmoid; ``meta["missing"]`` is True if a document was not scored. Model and index are
given by name, so that a pipeline can be written to YAML; Haystack reads it with
``Pipeline.loads(text, allowed_modules=["mixlm_rerank.integrations.haystack"])``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from mixlm_rerank.arguments import check_count
from mixlm_rerank.documents import docid_in, marked, rank_documents
from mixlm_rerank.errors import optional_import
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.ranking import probability
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Missing

with optional_import("this needs Haystack", "haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict

__all__ = ["MixLMRanker"]


@component
@dataclass(eq=False)
class MixLMRanker:
    """Reranks the documents of a retriever.

    Args:
        model: ``"default"``, a MixLM folder, or a hub id.
        index: folder of a token index; ``None``: texts are encoded on the fly.
        missing: see :class:`Reranker`.
        top_k: how many to keep; all for ``None``.
        scale_score: scores in [0, 1] instead of log-odds; 0 for missing documents.
        score_threshold: keep only documents with at least this score. Calibrate the model first (docs/thresholds.md):
            otherwise most unrelated documents may have a sigmoid above .5.
        docid_key: the key of the docid in ``meta``.
        device: cpu, cuda ...; by default a GPU if there is one.
    """

    model: str = "default"
    index: str | None = None
    missing: Missing | None = None
    top_k: int | None = None
    scale_score: bool = False
    score_threshold: float | None = None
    docid_key: str = "docid"
    device: str | None = None

    def __post_init__(self) -> None:
        check_count("top_k", self.top_k)
        self._reranker: Reranker | None = None

    def warm_up(self) -> None:
        """Load model and index; otherwise the first ``run`` does."""
        if self._reranker is None:
            index = None if self.index is None else TokenIndex(self.index)
            model = MixLM.from_pretrained(self.model, device=self.device)
            self._reranker = Reranker(model, index, missing=self.missing)

    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(self, **{each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MixLMRanker:
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """``{"documents": [...]}``, best first. Arguments given here override the component's for this run."""
        check_count("top_k", top_k)
        self.warm_up()
        assert self._reranker is not None
        docids = [docid_in(document.meta, self.docid_key, document.id) for document in documents]
        texts = [document.content for document in documents]
        ranked = rank_documents(self._reranker, query, texts, docids, [document.score for document in documents])
        threshold = self.score_threshold if score_threshold is None else score_threshold
        scaled = self.scale_score if scale_score is None else scale_score
        found = []
        for place, doc in ranked:
            score = probability(doc.score, missing=doc.missing) if scaled else doc.score
            if threshold is None or (score >= threshold and not doc.missing):
                document = documents[place]
                found.append(replace(document, score=score, meta=marked(document.meta, doc)))
        return {"documents": found[: top_k or self.top_k]}
