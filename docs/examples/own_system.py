"""A system of your own for ``mixlm-rerank eval report``: how many words of the query a document has.

Its package registers it by an entry point; then ``overlap`` and ``overlap:50`` are words for ``--systems``:

    [project.entry-points."mixlm_rerank.systems"]
    overlap = "own_system:WordOverlap"
"""

from __future__ import annotations

from collections.abc import Sequence

from mixlm_rerank import Candidate, ScoredDoc
from mixlm_rerank.systems.protocol import by_score
from mixlm_rerank.systems.workplace import Workplace


class WordOverlap:
    """``value`` is what stands behind the colon of the word, "" without one: here how many words are read."""

    name = "word overlap"  # in tables
    kind = "other"  # or "bi-encoder", "full text", "combination"
    tokens = None  # no embedding tokens
    pointwise = True  # a score depends on no other candidate
    seed_group = None  # stands alone

    def __init__(self, value: str) -> None:
        self.longest = int(value or 1000)
        self.description = f"word overlap, version 1, {self.longest} words"  # ranked anew when this changes

    def prepare(self, work: Workplace) -> None:
        """Called once for each collection: build what is needed of ``work.collection``, in ``work.indexes``."""

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        wanted = set(query.lower().split())
        texts = [(hit.text or "").lower().split()[: self.longest] for hit in candidates]
        return by_score(candidates, [len(wanted.intersection(words)) for words in texts])
