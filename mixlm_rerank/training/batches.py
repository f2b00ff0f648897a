"""Training batches: a few related queries and their documents, and what labels and teacher say of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["Batch", "single_batch"]


@dataclass(frozen=True)
class Batch:
    """Queries and documents that are scored against each other.

    Attributes:
        queries: [q] texts.
        documents: [n] texts, each once.
        own: for each query the rows of its own candidates, a relevant one first; the full-text pass reads of these.
        labels: float32 [q, n], soft grades in [0, 1]; NaN for a document that is no candidate of the query.
        teacher: float32 [q, n], the teacher's scores in log-odds; NaN for unknown pairs. Pairs of which nothing is
            known are not scored.
        titles: [n], of the documents, for a ranker that reads titles; empty: none has one.
        vectors: float32 [n, k, d], where documents are vectors of the user's own.
    """

    queries: list[str]
    documents: list[str]
    own: list[list[int]]
    labels: Tensor
    teacher: Tensor
    titles: list[str] = field(default_factory=list)
    vectors: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """bool [q, n]: the pairs to score."""
        return ~(self.labels.isnan() & self.teacher.isnan())

    def pieces(self, size: int) -> list[Batch]:
        """At most ``size`` queries each, with the documents that they are scored against."""
        return [
            self._piece(range(start, min(start + size, len(self.queries))))
            for start in range(0, len(self.queries), size)
        ]

    def _piece(self, rows: range) -> Batch:
        kept = self.mask[rows.start : rows.stop].any(dim=0).nonzero().flatten().tolist()
        places = {document: place for place, document in enumerate(kept)}
        return Batch(
            [self.queries[row] for row in rows],
            [self.documents[document] for document in kept],
            [[places[document] for document in self.own[row]] for row in rows],
            self.labels[rows.start : rows.stop, kept],
            self.teacher[rows.start : rows.stop, kept],
            [self.titles[document] for document in kept if self.titles],
            None if self.vectors is None else self.vectors[kept],
        )


def single_batch(batches: Sequence[Batch]) -> dict[str, Batch]:
    """The Trainer's collator: an item of the training set is a whole batch."""
    (batch,) = batches
    return {"batch": batch}
