"""Standings of systems over all collections: one row per system (or group of seeds), one cell per collection."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean, stdev
from typing import TypeVar

from mixlm_rerank.eval.results import CollectionResult, Evaluation, SystemResult
from mixlm_rerank.eval.significance import Verdict
from mixlm_rerank.numbers import DECIMALS
from mixlm_rerank.systems.protocol import Kind

__all__ = ["Row", "Standings", "best_of", "cast", "kind_of", "standings"]

ORDER: dict[Kind, int] = {"first stage": 0, "oracle": 2}  # of rows; other kinds are between these
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """A system, or all seeds of one; for each collection, its results, their mean, and the verdicts of the tests."""

    name: str
    kind: Kind
    seeds: tuple[tuple[SystemResult, ...], ...]  # by collection; empty where it did not run
    on: tuple[SystemResult | None, ...]  # by collection; several seeds are averaged
    mean: float | None  # of the measure, over collections; None unless it ran on all of them
    # Against the collection's baseline; of several seeds, the verdict that holds for every seed. None for the baseline
    # itself, and for the oracle, which is no system to choose.
    verdicts: tuple[Verdict | None, ...]

    @property
    def runs(self) -> int:
        """Number of seeds in the row."""
        return max(map(len, self.seeds))

    @property
    def documents_per_second(self) -> float | None:
        """Harmonic mean over collections: the speed at equal numbers of documents. None unless timed on all."""
        timed = [[one.efficiency.documents_per_second for one in own if one.efficiency] for own in self.seeds]
        return harmonic_mean(map(harmonic_mean, timed)) if all(timed) else None

    def value(self, column: int, measure: str) -> float | None:
        """The value of a measure on one collection; None where the row did not run."""
        there = self.on[column]
        return there.measures[measure] if there else None

    def by_query(self, column: int, measure: str) -> Mapping[str, float]:
        """qid -> value, on one collection."""
        there = self.on[column]
        return there.per_query.get(measure, {}) if there else {}

    def spread(self, measure: str) -> float | None:
        """Standard deviation (n - 1) of the seeds' means over collections; None with fewer than two seeds."""
        if len(set(map(len, self.seeds))) > 1 or len(self.seeds[0]) < 2:
            return None
        return stdev(fmean(system.measures[measure] for system in seed) for seed in zip(*self.seeds, strict=True))


@dataclass(frozen=True)
class Standings:
    """All systems and collections on one measure, as rows of the big table."""

    measure: str
    collections: tuple[str, ...]
    queries: tuple[int, ...]  # number of judged queries of each collection
    baseline: str | None  # None if collections have different ones
    teacher: str | None  # None if collections have different ones, or one has none
    rows: tuple[Row, ...]

    def row(self, name: str | None) -> Row | None:
        """The row of a system, by its own name or that of its seed group."""
        of = {system.name: row for row in self.rows for systems in row.seeds for system in systems}
        return (of | {row.name: row for row in self.rows}).get(name or "")

    @property
    def against(self) -> str:
        """The baseline, in words."""
        return self.baseline or "the collection's baseline"

    @property
    def ranked(self) -> list[Row]:
        """The rows that can be compared by mean."""
        return [row for row in self.rows if row.kind != "oracle" and row.mean is not None]

    @property
    def best(self) -> list[Row]:
        """The ``ranked`` rows with the highest mean; means that look equal in tables count as equal."""
        means = [round(row.mean or 0.0, DECIMALS) for row in self.ranked]
        return [row for row, mean in zip(self.ranked, means, strict=True) if mean == max(means)]


def standings(evaluation: Evaluation, measure: str | None = None) -> Standings:
    """All systems on one measure: first stages at the top, oracles at the bottom, the rest in the given order.

    ``measure``: None is the main measure. Other measures have no verdicts.
    """
    main, collections = evaluation.measures[0], evaluation.collections
    measure = measure or main
    seeds: dict[str, list[list[SystemResult]]] = {}
    kinds: dict[str, Kind] = {}
    for column, collection in enumerate(collections):
        for system in collection.systems:
            name = system.seed_group or system.name
            seeds.setdefault(name, [[] for _ in collections])[column].append(system)
            kinds.setdefault(name, kind_of(collection, system))
    rows = []
    for name, systems in seeds.items():
        on = tuple(map(_mean_of, systems))
        values = [there.measures[measure] for there in on if there]
        mean = fmean(values) if len(values) == len(collections) else None
        tested = kinds[name] != "oracle" and measure == main
        verdicts = tuple(_verdict(own) if tested else None for own in systems)
        rows.append(Row(name, kinds[name], tuple(map(tuple, systems)), on, mean, verdicts))

    baselines = {collection.baseline for collection in collections}
    teachers = {collection.teacher for collection in collections}
    return Standings(
        measure,
        tuple(collection.name for collection in collections),
        tuple(collection.queries for collection in collections),
        baselines.pop() if len(baselines) == 1 else None,
        teachers.pop() if len(teachers) == 1 else None,
        tuple(sorted(rows, key=lambda row: ORDER.get(row.kind, 1))),
    )


def cast(table: Standings) -> list[Row]:
    """Rows that pictures show in colour: the first stage, the teacher, and the best row by mean of each other kind."""
    chosen = [best_of(table, kind) for kind in ("MixLM", "full text", "combination", "bi-encoder", "other")]
    teacher = table.row(table.teacher)
    if teacher is not None:
        chosen = [teacher if row is not None and row.kind == teacher.kind else row for row in chosen]
    first_stage = next((row for row in table.rows if row.kind == "first stage"), None)
    return [row for row in (*chosen, first_stage) if row is not None]


def best_of(table: Standings, kind: Kind) -> Row | None:
    """The row of that kind with the highest mean; the first one if no row ran on all collections."""
    rows = [row for row in table.rows if row.kind == kind]
    return max(rows, key=lambda row: -1.0 if row.mean is None else row.mean, default=None)


def kind_of(collection: CollectionResult, system: SystemResult) -> Kind:
    """The system's kind; if it was left open, derived from the collection's roles, the token budget and the name."""
    if system.kind != "other":
        return system.kind
    if system.name == collection.first_stage:
        return "first stage"
    if system.name.lower() == "oracle":
        return "oracle"
    if system.tokens is not None:
        return "MixLM"
    return "full text" if system.name == collection.teacher else "other"


def _mean_of(seeds: Sequence[SystemResult]) -> SystemResult | None:
    """The seeds averaged into one result; None for no seeds."""
    if len(seeds) < 2:
        return seeds[0] if seeds else None
    return replace(
        seeds[0],
        measures=_means([one.measures for one in seeds]),
        per_query={name: _means([one.per_query.get(name, {}) for one in seeds]) for name in seeds[0].per_query},
        depth_curve=_means([one.depth_curve for one in seeds]),
        slices=[  # the queries are the same, and so are their slices
            replace(pieces[0], value=fmean(piece.value for piece in pieces))
            for pieces in zip(*(one.slices for one in seeds), strict=False)
        ],
    )


def _means(parts: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """Means of the keys that all parts have."""
    return {key: fmean(part[key] for part in parts) for key in parts[0] if all(key in part for part in parts)}


def _verdict(systems: Sequence[SystemResult]) -> Verdict | None:
    verdicts = [system.comparison.verdict for system in systems if system.comparison is not None]
    if not verdicts:
        return None
    low, high = min(verdicts), max(verdicts)
    return low if low > 0 else high if high < 0 else Verdict.NO_DIFFERENCE
