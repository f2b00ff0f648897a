"""The training set: batches out of the candidate pools of many collections, in one fixed order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.batches import Batch
from mixlm_rerank.training.pools import Pool

__all__ = ["PairTeacher", "Source", "TrainingMix"]

# (query texts [q], document texts [n]) -> scores in log-odds, float32 [q, n]; NaN where it does not know.
PairTeacher = Callable[[Sequence[str], Sequence[str]], Tensor]


@dataclass(frozen=True)
class Source:
    """One collection to train on.

    Attributes:
        name: for messages.
        pools: its queries with their candidates.
        texts: docid -> text of every candidate.
        embeddings: of the queries, float [pools, d]: queries that are near to each other come into one batch, where the
            candidates of one are hard negatives of the others.
        teacher: scores of any pair.
        weight: its share of the batches, against the other sources' weights.
        highest_grade: the grade that counts as 1; soft labels are ``grade / highest_grade``.
        label_scale: log-odds that a label of 1 adds to the teacher's score.
        across: also compare a query with the candidates of the others in its batch.
    """

    name: str
    pools: Sequence[Pool]
    texts: Mapping[str, str]
    embeddings: NDArray[np.floating]
    teacher: PairTeacher
    weight: float = 1.0
    highest_grade: int = 1
    label_scale: float = 0.0
    across: bool = True


class TrainingMix(Dataset[Batch]):
    """``count`` groups of ``queries`` queries of one source with ``candidates`` documents each.

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
            groups: list[NDArray[np.int64]] = []
            for place in np.flatnonzero(self._source_of == number):
                if not groups:  # all queries were seen: another round, in other company
                    everything = np.arange(len(source.pools))
                    groups = _near(everything, source.embeddings, queries, draw)
                    draw.shuffle(groups)
                self._pools_of[place] = groups.pop()

    def __len__(self) -> int:
        return len(self._pools_of)

    def __getitem__(self, position: int) -> Batch:
        source = self._sources[self._source_of[position]]
        draw = random.Random(f"{self._seed} {position}")
        pools = [source.pools[row] for row in self._pools_of[position]]
        chosen = [self._chosen(pool, draw) for pool in pools]
        rows = {docid: row for row, docid in enumerate(dict.fromkeys(docid for docids in chosen for docid in docids))}
        documents = [source.texts[docid] for docid in rows]
        queries = [pool.query for pool in pools]
        own = [[rows[docid] for docid in docids] for docids in chosen]
        labels = torch.full((len(pools), len(rows)), torch.nan)
        for query, pool in enumerate(pools):
            labels[query, own[query]] = 0.0  # unjudged candidates: not relevant, as measures count them
            for docid in rows.keys() & pool.judged.keys():
                labels[query, rows[docid]] = min(1.0, pool.judged[docid] / source.highest_grade)
        teacher = source.teacher(queries, documents) + source.label_scale * labels.nan_to_num()
        if not source.across:
            others = torch.ones_like(teacher, dtype=torch.bool)
            for query, columns in enumerate(own):
                others[query, columns] = False
            teacher, labels = teacher.masked_fill(others, torch.nan), labels.masked_fill(others, torch.nan)
        return Batch(queries, documents, own, labels, teacher)

    def _chosen(self, pool: Pool, draw: random.Random) -> list[str]:
        """A relevant document first, then others at random."""
        first = draw.choice(pool.relevant or pool.docids)
        others = [docid for docid in pool.docids if docid != first]
        return [first, *draw.sample(others, min(self._candidates - 1, len(others)))]


def _near(
    rows: NDArray[np.int64], embeddings: NDArray[np.floating], size: int, draw: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Groups of at most ``size`` rows that are near to each other: halves along random directions, again and again."""
    if len(rows) <= size:
        return [rows]
    one, other = draw.choice(rows, size=2, replace=False)
    along = embeddings[rows] @ (embeddings[one] - embeddings[other])
    order = rows[np.argsort(along, kind="stable")]
    whole = -(-len(rows) // size)  # groups that these rows make
    middle = whole // 2 * size
    return _near(order[:middle], embeddings, size, draw) + _near(order[middle:], embeddings, size, draw)


def _check(source: Source) -> None:
    if not source.pools:
        raise InputError(f"{source.name} has no queries to train on")
    if len(source.embeddings) != len(source.pools):
        raise InputError(f"{source.name} has {len(source.pools)} pools, but {len(source.embeddings)} query embeddings")
    lacking = next((docid for pool in source.pools for docid in pool.docids if docid not in source.texts), None)
    if lacking is not None:
        raise InputError(f"{source.name}: the candidate {lacking!r} is no document of the corpus")
