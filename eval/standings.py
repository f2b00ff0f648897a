"""How systems stand over all collections: one row a system (or group of seeds), one cell a collection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, harmonic_mean, stdev

from mixlm_rerank.eval.results import CollectionResult, Evaluation, SystemResult
from mixlm_rerank.eval.significance import Interval, Verdict, interval
from mixlm_rerank.numbers import DECIMALS
from mixlm_rerank.systems.protocol import Kind

__all__ = ["Cell", "Row", "Standings", "in_order", "kind_of", "standings"]


@dataclass(frozen=True)
class Cell:
    """A row on one collection.

    Attributes:
        value: the measure; of several seeds, their mean.
        verdict: against the collection's baseline; of several seeds, what holds for each of them. None for the
            baseline itself and for the oracle, which is no system to choose.
        best: no other row but the oracle has a higher value.
        interval: 95%, over queries; None for too few of them.
    """

    value: float
    verdict: Verdict | None
    best: bool
    interval: Interval | None


@dataclass(frozen=True)
class Row:
    """A system, or all seeds of one.

    Attributes:
        members: for each collection, its systems: none where it did not run, several where there are seeds.
        cells: for each collection; None where it did not run.
        mean: over collections; None unless it ran on all of them.
        interval: of that mean, 95%, over queries; None for too few of them.
        sd: of the seeds' means (n - 1); None with fewer than two seeds.
        best: no other row but the oracle has a higher mean.
        documents_per_second: for the same number of documents of each collection; None unless timed on all of them.
    """

    name: str
    kind: Kind
    members: tuple[tuple[SystemResult, ...], ...]
    cells: tuple[Cell | None, ...]
    mean: float | None
    interval: Interval | None
    sd: float | None
    best: bool
    documents_per_second: float | None

    def value(self, column: int, measure: str) -> float | None:
        """Any measure on one collection: of several seeds, their mean; None where the row did not run."""
        return _value(self.members[column], measure)

    def by_query(self, column: int, measure: str) -> dict[str, float]:
        """qid -> value, the mean over seeds; empty where they were not measured on the same queries."""
        return _by_query(self.members[column], measure)

    @property
    def seeds(self) -> int:
        """How many runs the row stands for."""
        return max(map(len, self.members))


@dataclass(frozen=True)
class Standings:
    """The big table. ``baseline`` and ``teacher``: their names, None where collections differ in them (or lack one).

    ``queries``: how many are judged, for each collection.
    """

    measure: str
    collections: tuple[str, ...]
    queries: tuple[int, ...]
    baseline: str | None
    teacher: str | None
    rows: tuple[Row, ...]

    def row(self, name: str | None) -> Row | None:
        """The row of a system, by its own name or that of its seed group."""
        of = {system.name: row for row in self.rows for systems in row.members for system in systems}
        return (of | {row.name: row for row in self.rows}).get(name or "")

    @property
    def against(self) -> str:
        """The baseline, in words."""
        return self.baseline or "the collection's baseline"

    @property
    def ranked(self) -> list[Row]:
        """The rows that can be compared by mean."""
        return [row for row in self.rows if row.kind != "oracle" and row.mean is not None]


def standings(evaluation: Evaluation, measure: str | None = None) -> Standings:
    """All systems on one measure: first stages at the top, oracles at the bottom, the rest as they stand.

    ``measure``: the main one for ``None``. Others have no verdicts, and Judged has no best.
    """
    main = evaluation.measures[0]
    measure = measure or main
    collections = evaluation.collections
    groups: dict[str, list[list[SystemResult]]] = {}
    kinds: dict[str, Kind] = {}
    for column, collection in enumerate(collections):
        for system in collection.systems:
            key = system.seed_group or system.name
            groups.setdefault(key, [[] for _ in collections])[column].append(system)
            kinds.setdefault(key, kind_of(collection, system))
    values = {key: [_value(systems, measure) for systems in members] for key, members in groups.items()}
    means = {key: _over_all(row) for key, row in values.items()}
    rivals = [key for key in groups if kinds[key] != "oracle" and not measure.startswith("Judged")]
    highest = [_highest(values[key][column] for key in rivals) for column in range(len(collections))]
    highest_mean = _highest(means[key] for key in rivals)

    def row(key: str, members: list[list[SystemResult]]) -> Row:
        samples = [tuple(_by_query(systems, measure).values()) for systems in members]
        cells = [
            None
            if value is None
            else Cell(
                value,
                _verdict(systems) if key in rivals and measure == main else None,
                key in rivals and _same(value, top),
                interval(sample),
            )
            for value, systems, top, sample in zip(values[key], members, highest, samples, strict=True)
        ]
        seeds = list(zip(*members, strict=True)) if len({len(systems) for systems in members}) == 1 else []
        of_seeds = [fmean(system.measures[measure] for system in seed) for seed in seeds]
        return Row(
            key,
            kinds[key],
            tuple(map(tuple, members)),
            tuple(cells),
            means[key],
            interval(*samples),
            stdev(of_seeds) if len(of_seeds) > 1 else None,
            key in rivals and _same(means[key], highest_mean),
            _speed(members),
        )

    def shared(names: Iterable[str | None]) -> str | None:
        found = set(names)
        return found.pop() if len(found) == 1 else None

    rows = [row(key, members) for key, members in groups.items()]
    return Standings(
        measure,
        tuple(collection.name for collection in collections),
        tuple(collection.queries for collection in collections),
        shared(collection.baseline for collection in collections),
        shared(collection.teacher for collection in collections),
        tuple(sorted(rows, key=lambda row: in_order(row.kind))),
    )


def kind_of(collection: CollectionResult, system: SystemResult) -> Kind:
    """The system's kind; where it was left open, what the collection's roles and the system's name tell."""
    if system.kind != "other":
        return system.kind
    if system.name == collection.first_stage:
        return "first stage"
    if system.name.lower() == "oracle":
        return "oracle"
    if system.tokens is not None:
        return "MixLM"
    return "full text" if system.name == collection.teacher else "other"


def in_order(kind: Kind) -> int:
    """What tables are sorted by: the first stage at the top, the oracle at the bottom."""
    return {"first stage": 0, "oracle": 2}.get(kind, 1)


def _value(systems: Sequence[SystemResult], measure: str) -> float | None:
    return fmean(system.measures[measure] for system in systems) if systems else None


def _by_query(systems: Sequence[SystemResult], measure: str) -> dict[str, float]:
    values = [system.per_query.get(measure, {}) for system in systems]
    if not values or any(one.keys() != values[0].keys() for one in values):
        return {}
    return {qid: fmean(one[qid] for one in values) for qid in values[0]}


def _verdict(systems: Sequence[SystemResult]) -> Verdict | None:
    verdicts = [system.comparison.verdict for system in systems if system.comparison is not None]
    if not verdicts:
        return None
    low, high = min(verdicts), max(verdicts)
    return low if low > 0 else high if high < 0 else Verdict.NO_DIFFERENCE


def _over_all(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if len(there) == len(values) else None


def _speed(members: Sequence[Sequence[SystemResult]]) -> float | None:
    """The harmonic mean: the speed at which the same number of documents of each collection is ranked."""
    timed = [[one.efficiency.documents_per_second for one in systems if one.efficiency] for systems in members]
    return harmonic_mean(map(harmonic_mean, timed)) if all(timed) else None


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _same(value: float | None, other: float | None) -> bool:
    """Equal as tables show them: what looks equal is equally best."""
    return value is not None and other is not None and round(value, DECIMALS) == round(other, DECIMALS)
