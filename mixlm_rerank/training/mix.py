"""The training set: batches out of the candidate pools of many collections, in one fixed order."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.batches import Batch
from mixlm_rerank.training.pools import Pool

__all__ = ["Source", "TrainingMix"]


@dataclass(frozen=True)
class Source:
    """One collection to train on.

    Attributes:
        name: for messages.
        pools: its queries with their candidates.
        texts: docid -> text of every candidate.
        scores: the teacher's, of every candidate in log-odds, float [pools, most candidates]; NaN past a pool's end.
        weight: its share of the batches, against the other sources' weights.
        highest_grade: the grade that counts as 1; soft labels are ``grade / highest_grade``.
        label_scale: log-odds that a label of 1 adds to the teacher's score.
    """

    name: str
    pools: Sequence[Pool]
    texts: Mapping[str, str]
    scores: NDArray[np.floating]
    weight: float = 1.0
    highest_grade: int = 1
    label_scale: float = 0.0


class TrainingMix(Dataset[Batch]):
    """``count`` batches of ``queries`` queries of one source with ``candidates`` documents each.

    A query is compared with its own candidates alone: those of others are too easy. (Where two queries of a batch have
    a candidate in common, both are compared with it.)

    What is where depends on ``seed`` and the position alone, so a resumed run goes on with the same. Raises InputError
    without sources, for one without pools, or for a candidate that has no text.
    """

    def __init__(self, sources: Sequence[Source], count: int, *, queries: int, candidates: int, seed: int = 0) -> None:
        if not sources:
            raise InputError("there is nothing to train on: no collection is named")
        for source in sources:
            _check(source)
        draw = np.random.default_rng(seed)
        shares = np.array([source.weight for source in sources])
        self._sources = sources
        self._candidates = candidates
        self._seed = seed
        self._source_of = draw.choice(len(sources), size=count, p=shares / shares.sum())
        self._pools_of: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * count
        for number, source in enumerate(sources):
            left: list[NDArray[np.int64]] = []
            for place in np.flatnonzero(self._source_of == number):
                if not left:  # all queries were seen: another round, in other company
                    order = draw.permutation(len(source.pools))
                    left = [order[start : start + queries] for start in range(0, len(order), queries)]
                self._pools_of[place] = left.pop()

    def __len__(self) -> int:
        return len(self._pools_of)

    def __getitem__(self, position: int) -> Batch:
        source = self._sources[self._source_of[position]]
        draw = random.Random(f"{self._seed} {position}")
        chosen_pools = self._pools_of[position]
        pools = [source.pools[row] for row in chosen_pools]
        chosen = [self._chosen(pool, draw) for pool in pools]
        rows = {docid: row for row, docid in enumerate(dict.fromkeys(docid for docids in chosen for docid in docids))}
        labels, teacher = torch.full((2, len(pools), len(rows)), torch.nan)
        for query, (pool, scores) in enumerate(zip(pools, source.scores[chosen_pools], strict=True)):
            for docid, score in zip(pool.docids, scores, strict=False):
                if docid in rows:  # an unjudged candidate is not relevant, as measures count it
                    labels[query, rows[docid]] = min(1.0, pool.judged.get(docid, 0) / source.highest_grade)
                    teacher[query, rows[docid]] = float(score)
        return Batch(
            [pool.query for pool in pools],
            [source.texts[docid] for docid in rows],
            [[rows[docid] for docid in docids] for docids in chosen],
            labels,
            teacher + source.label_scale * labels,
        )

    def _chosen(self, pool: Pool, draw: random.Random) -> list[str]:
        """A relevant document first, then others at random."""
        first = draw.choice(pool.relevant or pool.docids)
        others = [docid for docid in pool.docids if docid != first]
        return [first, *draw.sample(others, min(self._candidates - 1, len(others)))]


def _check(source: Source) -> None:
    if not source.pools:
        raise InputError(f"{source.name} has no queries to train on")
    most = max(len(pool.docids) for pool in source.pools)
    if source.scores.shape != (len(source.pools), most):
        raise InputError(
            f"{source.name} has {len(source.pools)} pools of at most {most} candidates, but teacher scores of shape "
            f"{source.scores.shape}"
        )
    lacking = next((docid for pool in source.pools for docid in pool.docids if docid not in source.texts), None)
    if lacking is not None:
        raise InputError(f"{source.name}: the candidate {lacking!r} is no document of the corpus")
