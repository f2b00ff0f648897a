"""PyTerrier: a transformer that reranks; no text column needed.

Rows are looked up by ``docno``; a ``text`` column, if there is one, serves ``missing="encode"`` and ``verify_top``.
Documents that were not scored get a score below -10,000. docs/integrations/pyterrier.md has an example that runs.
"""

from __future__ import annotations

from typing import ClassVar

from mixlm_rerank.errors import optional_import
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Candidate

with optional_import("this needs PyTerrier", "pyterrier"):
    import pandas as pd
    import pyterrier as pt

__all__ = ["MixLMReranker"]


class MixLMReranker(pt.Transformer):
    """Reranks result frames (``qid, query, docno``, and perhaps ``score``): returns new ``score`` and ``rank``.

    All other columns stay. All queries of a frame are reranked together.
    """

    # For PyTerrier's drawings of pipelines; without a help_url they ask the network for one.
    schematic: ClassVar[dict[str, object]] = {"label": "MixLM", "help_url": None}

    def __init__(self, reranker: Reranker) -> None:
        super().__init__()
        self.reranker = reranker

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Raises InputError for no docno, or a repeated docno with one text; PyTerrier's error for a missing column."""
        pt.validate.result_frame(frame, extra_columns=["query"])
        frame = frame.reset_index(drop=True)
        queries: dict[str, str] = {}
        hits: dict[str, list[Candidate]] = {}
        rows = []
        for row in frame.itertuples():
            qid, text = str(row.qid), getattr(row, "text", None)
            queries.setdefault(qid, row.query)
            own = hits.setdefault(qid, [])
            score = float(row.score) if hasattr(row, "score") else float(-len(own))
            own.append(Candidate(row.docno, score, text if isinstance(text, str) else None))  # a merge leaves NaN
            rows.append((qid, row.docno, own[-1].text))
        for candidates in hits.values():
            candidates.sort(key=lambda hit: -hit.score)
        ranked = self.reranker.rerank_batch(queries, hits)
        scores = {(qid, doc.docid, doc.text): doc.score for qid, docs in ranked.items() for doc in docs}
        frame = frame.drop(columns=["rank"], errors="ignore").assign(score=[scores[row] for row in rows])
        return pt.model.add_ranks(frame.astype({"score": "float64"}))
