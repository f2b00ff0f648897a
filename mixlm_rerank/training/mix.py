"""The training set: batches from the candidate pools of many collections, in one fixed order.

A batch holds a few queries and their documents, with the label and the teacher's score of each pair.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenStore
from mixlm_rerank.training.folder import digest_of
from mixlm_rerank.training.pools import Pool, digest, is_candidate

__all__ = ["Batch", "Draw", "Source", "TrainingMix", "single_batch"]

Draw = Literal["random", "stratified"]


@dataclass(frozen=True)
class Batch:
    """Queries and documents that are scored against each other. Pairs with neither label nor score are skipped."""

    queries: list[str]  # [q] texts
    documents: list[str]  # [n] texts, unique
    own: list[list[int]]  # rows of each query's own candidates, a relevant one first; for the full-text pass
    labels: Tensor  # float32 [q, n], soft grades in [0, 1]; NaN for a document that is no candidate of the query
    teacher: Tensor  # float32 [q, n], the teacher's scores in log-odds; NaN for unknown pairs
    titles: list[str] = field(default_factory=list)  # [n], for a ranker that reads titles; empty: no titles
    vectors: Tensor | None = None  # float32 [n, k, d], if documents are the user's own vectors

    @property
    def mask(self) -> Tensor:
        """bool [q, n]: the pairs to score."""
        return ~(self.labels.isnan() & self.teacher.isnan())

    def pieces(self, size: int) -> list[Batch]:
        """Split into batches of at most ``size`` queries, each with the documents that they are scored against."""
        return [self._piece(slice(start, start + size)) for start in range(0, len(self.queries), size)]

    def _piece(self, rows: slice) -> Batch:
        kept = self.mask[rows].any(dim=0).nonzero().flatten().tolist()
        places = {document: place for place, document in enumerate(kept)}
        return Batch(
            self.queries[rows],
            [self.documents[document] for document in kept],
            [[places[document] for document in own] for own in self.own[rows]],
            self.labels[rows, kept],
            self.teacher[rows, kept],
            [self.titles[document] for document in kept if self.titles],
            None if self.vectors is None else self.vectors[kept],
        )


def single_batch(batches: Sequence[Batch]) -> dict[str, Batch]:
    """The Trainer's collator: an item of the training set is a whole batch."""
    (batch,) = batches
    return {"batch": batch}


@dataclass(frozen=True)
class Source:
    """One collection to train on.

    Attributes:
        name: for messages.
        pools: the queries with their candidates.
        texts: docid -> text of every candidate.
        scores: the teacher's log-odds of every candidate, float [pools, most candidates]; NaN past a pool's end and for
            candidates that no batch reads.
        weight: share of the batches, relative to the other sources' weights.
        highest_grade: the grade that counts as 1; soft labels are ``grade / highest_grade``.
        label_scale: log-odds that a label of 1 adds to the teacher's score.
        titles: docid -> title, for a ranker that reads titles; documents that it lacks have none.
        vectors: the index of all candidates, if documents are the user's own vectors.
    """

    name: str
    pools: Sequence[Pool]
    texts: Mapping[str, str]
    scores: NDArray[np.floating]
    weight: float = 1.0
    highest_grade: int = 1
    label_scale: float = 0.0
    titles: Mapping[str, str] = field(default_factory=dict)
    vectors: TokenStore | None = None


class TrainingMix(Dataset[Batch]):
    """``count`` batches: each has ``queries`` queries of one source, with ``candidates`` documents per query.

    A query is scored only against its own candidates: those of other queries are too easy. (A candidate that two
    queries of a batch share is scored for both.)

    A query's first candidate is a relevant document, if there is one. ``draw`` says how the others are drawn from its
    pool: ``"random"``, or ``"stratified"``, one from each of equal sections of the teacher's order.

    A batch depends only on ``seed`` and its position (if stratified, also on the teacher): a resumed run continues with
    the same batches, and a longer run begins with those of a shorter one. Raises InputError for no sources, a source
    without pools, or a candidate without text.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        count: int,
        *,
        queries: int,
        candidates: int,
        draw: Draw = "random",
        seed: int = 0,
    ) -> None:
        if not sources:
            raise InputError("there is nothing to train on: no collection is named")
        for source in sources:
            if not source.pools:
                raise InputError(f"{source.name} has no queries to train on")
            count_of, most = is_candidate(source.pools).shape
            if source.scores.shape != (count_of, most):
                raise InputError(
                    f"{source.name} has {count_of} pools of at most {most} candidates, but teacher scores of shape "
                    f"{source.scores.shape}"
                )
            lacking = next((docid for pool in source.pools for docid in pool.docids if docid not in source.texts), None)
            if lacking is not None:
                raise InputError(f"{source.name}: the candidate {lacking!r} is no document of the corpus")
        shares = np.array([source.weight for source in sources])
        self.sources = sources
        self._candidates = candidates
        self._stratified = draw == "stratified"
        self._seed = seed
        self._source_of = np.random.default_rng([seed, 0]).choice(len(sources), size=count, p=shares / shares.sum())
        self._pools_of: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * count
        for number, source in enumerate(sources):
            shuffled = np.random.default_rng([seed, 1 + number])
            left: list[NDArray[np.int64]] = []
            for place in np.flatnonzero(self._source_of == number):
                if not left:  # all queries were used: start another round with other groups
                    order = shuffled.permutation(len(source.pools))
                    left = [order[start : start + queries] for start in range(0, len(order), queries)]
                self._pools_of[place] = left.pop()

    def __len__(self) -> int:
        return len(self._pools_of)

    def __getitem__(self, position: int) -> Batch:
        source = self.sources[self._source_of[position]]
        chosen, rows = self._drawn(position)
        shape = (len(chosen), len(rows))
        labels, teacher = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
        pools = [source.pools[row] for row in self._pools_of[position]]
        for query, (pool, scores) in enumerate(zip(pools, source.scores[self._pools_of[position]], strict=True)):
            for docid, score in zip(pool.docids, scores, strict=False):
                if docid in rows:  # unjudged candidates count as not relevant, as in measures
                    labels[query, rows[docid]] = min(1.0, pool.judged.get(docid, 0) / source.highest_grade)
                    teacher[query, rows[docid]] = float(score)
        return Batch(
            [pool.query for pool in pools],
            [source.texts[docid] for docid in rows],
            [[rows[docid] for docid in docids] for docids in chosen],
            labels,
            teacher + source.label_scale * labels,
            [source.titles.get(docid, "") for docid in rows],
            None if source.vectors is None else torch.from_numpy(source.vectors.fetch(list(rows)).tokens),
        )

    @property
    def digest(self) -> str:
        """Hash of all training data: a run that was begun with other batches is not resumed."""
        rows = [own.tolist() for own in self._pools_of]
        drawn = (self._source_of.tolist(), rows, self._candidates, self._stratified, self._seed)
        learned = []
        for one in self.sources:
            counted = ([pool.judged for pool in one.pools], one.weight, one.highest_grade, one.label_scale)
            learned.append(digest(one.pools, one.texts, one.scores.tobytes(), counted))
        return digest_of(drawn, learned)

    def with_sources(self, sources: Sequence[Source]) -> TrainingMix:
        """The same batches of the same sources, with other scores."""
        other = copy(self)
        other.sources = sources
        return other

    def wanted(self) -> list[NDArray[np.bool_]]:
        """Which scores of each source are read by some batch, bool [pools, most candidates]."""
        if self._stratified:  # the draw depends on all scores
            return [is_candidate(source.pools) for source in self.sources]
        masks = [np.zeros(source.scores.shape, dtype=bool) for source in self.sources]
        for position in range(len(self)):
            number = self._source_of[position]
            _, rows = self._drawn(position)
            for pool in self._pools_of[position]:
                for column, docid in enumerate(self.sources[number].pools[pool].docids):
                    masks[number][pool, column] |= docid in rows
        return masks

    def _drawn(self, position: int) -> tuple[list[list[str]], dict[str, int]]:
        """Each query's own candidates, and the row in the batch of every candidate."""
        source = self.sources[self._source_of[position]]
        draw = random.Random(f"{self._seed} {position}")
        chosen = [self._chosen(source.pools[row], source.scores[row], draw) for row in self._pools_of[position]]
        return chosen, {docid: row for row, docid in enumerate(dict.fromkeys(sum(chosen, [])))}

    def _chosen(self, pool: Pool, scores: NDArray[np.floating], draw: random.Random) -> list[str]:
        """Draw a query's candidates: a relevant document first, then others."""
        first = draw.choice(pool.relevant or pool.docids)
        others = [docid for docid in pool.docids if docid != first]
        count = min(self._candidates - 1, len(others))
        if not self._stratified:
            return [first, *draw.sample(others, count)]
        order = [pool.docids[place] for place in np.argsort(-scores[: len(pool.docids)], kind="stable")]
        order.remove(first)
        bounds = [len(order) * section // count for section in range(count + 1)]
        return [first, *(draw.choice(order[start:end]) for start, end in pairwise(bounds))]
