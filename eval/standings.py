"""How systems stand over all collections: one row a system (or group of seeds), one cell a collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from statistics import fmean, harmonic_mean, stdev

from mixlm_rerank.eval.results import CollectionResult, Evaluation, SystemResult
from mixlm_rerank.eval.significance import Comparison, Interval, interval
from mixlm_rerank.numbers import DECIMALS
from mixlm_rerank.systems.protocol import Kind

__all__ = ["ALPHA", "Cell", "Row", "Standings", "Verdict", "kind_of", "standings", "verdict"]

ALPHA = 0.05


class Verdict(IntEnum):
    """What two paired tests say of a difference: significant in both, in one of them, or in none."""

    WORSE = -2
    WORSE_IN_ONE = -1
    NO_DIFFERENCE = 0
    BETTER_IN_ONE = 1
    BETTER = 2


@dataclass(frozen=True)
class Cell:
    """A row on one collection.

    Attributes:
        value: the main measure; of several seeds, their mean.
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
        return fmean(s.measures[measure] for s in self.members[column]) if self.members[column] else None

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

    @property
    def heads(self) -> list[str]:
        """Collections with their numbers of queries."""
        return [f"{name}, n={count:,}" for name, count in zip(self.collections, self.queries, strict=True)]

    def row(self, name: str | None) -> Row | None:
        """The row of a system, by its own name or that of its seed group."""
        return next((row for row in self.rows if name == row.name or name in _names(row)), None)


def standings(evaluation: Evaluation, measure: str | None = None) -> Standings:
    """All systems on one measure: first stages at the top, oracles at the bottom, the rest as they stand.

    ``measure``: the main one for ``None``. Others have no verdicts, and Judged has no best.
    """
    main = evaluation.measures[0]
    measure = measure or main
    collections = evaluation.collections
    keys = dict.fromkeys(_key(system) for collection in collections for system in collection.systems)
    members = {
        key: tuple(tuple(s for s in collection.systems if _key(s) == key) for collection in collections) for key in keys
    }
    kinds = {key: _kind(collections, found) for key, found in members.items()}
    values = {
        key: [fmean(s.measures[measure] for s in systems) if systems else None for systems in found]
        for key, found in members.items()
    }
    by_query = {key: [_by_query(systems, measure) for systems in found] for key, found in members.items()}
    rivals = {key for key in keys if kinds[key] != "oracle" and not measure.startswith("Judged")}
    highest = [_highest(values[key][column] for key in rivals) for column in range(len(collections))]
    means = {key: _over_all(row) for key, row in values.items()}
    highest_mean = _highest(means[key] for key in rivals)

    def cell(key: str, column: int) -> Cell | None:
        value = values[key][column]
        if value is None:
            return None
        found = _verdict_of(members[key][column]) if key in rivals and measure == main else None
        best = key in rivals and _same(value, highest[column])
        return Cell(value, found, best, _interval(by_query[key][column]))

    rows = [
        Row(
            name=key,
            kind=kinds[key],
            members=members[key],
            cells=tuple(cell(key, column) for column in range(len(collections))),
            mean=means[key],
            interval=_interval(*by_query[key]),
            sd=_sd_of_seeds(members[key], measure),
            best=key in rivals and _same(means[key], highest_mean),
            documents_per_second=_speed(members[key]),
        )
        for key in keys
    ]
    place = {"first stage": 0, "oracle": 2}
    return Standings(
        measure=measure,
        collections=tuple(collection.name for collection in collections),
        queries=tuple(collection.queries for collection in collections),
        baseline=_shared(collection.baseline for collection in collections),
        teacher=_shared(collection.teacher for collection in collections),
        rows=tuple(sorted(rows, key=lambda row: place.get(row.kind, 1))),
    )


def verdict(comparison: Comparison) -> Verdict:
    """Significant means a Holm-corrected p below .05.

    >>> verdict(Comparison("MixLM", difference=-0.02, wins=3, losses=9, p_t=0.04, p_randomisation=0.06))
    <Verdict.WORSE_IN_ONE: -1>
    """
    tests = (comparison.p_t < ALPHA) + (comparison.p_randomisation < ALPHA)
    return Verdict(tests if comparison.difference > 0 else -tests)


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


def _key(system: SystemResult) -> str:
    return system.seed_group or system.name


def _by_query(systems: Sequence[SystemResult], measure: str) -> dict[str, float]:
    values = [system.per_query.get(measure, {}) for system in systems]
    if not values or any(one.keys() != values[0].keys() for one in values):
        return {}
    return {qid: fmean(one[qid] for one in values) for qid in values[0]}


def _interval(*collections: Mapping[str, float]) -> Interval | None:
    return interval(*(tuple(values.values()) for values in collections))


def _names(row: Row) -> set[str]:
    return {system.name for systems in row.members for system in systems}


def _kind(collections: Sequence[CollectionResult], members: Sequence[Sequence[SystemResult]]) -> Kind:
    pairs = zip(collections, members, strict=True)
    return next(kind_of(collection, system) for collection, systems in pairs for system in systems)


def _verdict_of(systems: Sequence[SystemResult]) -> Verdict | None:
    verdicts = [verdict(system.comparison) for system in systems if system.comparison is not None]
    if not verdicts:
        return None
    low, high = min(verdicts), max(verdicts)
    return low if low > 0 else high if high < 0 else Verdict.NO_DIFFERENCE


def _over_all(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return fmean(there) if len(there) == len(values) else None


def _sd_of_seeds(members: Sequence[Sequence[SystemResult]], measure: str) -> float | None:
    seeds = len(members[0])
    if seeds < 2 or any(len(systems) != seeds for systems in members):
        return None
    return stdev(fmean(systems[seed].measures[measure] for systems in members) for seed in range(seeds))


def _speed(members: Sequence[Sequence[SystemResult]]) -> float | None:
    """The harmonic mean: the speed at which the same number of documents of each collection is ranked."""
    speeds = []
    for systems in members:
        timed = [system.efficiency.documents_per_second for system in systems if system.efficiency is not None]
        if not timed:
            return None
        speeds.append(harmonic_mean(timed))
    return harmonic_mean(speeds)


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _same(value: float | None, other: float | None) -> bool:
    """Equal as tables show them: what looks equal is equally best."""
    return value is not None and other is not None and round(value, DECIMALS) == round(other, DECIMALS)


def _shared(names: Iterable[str | None]) -> str | None:
    found = set(names)
    return found.pop() if len(found) == 1 else None
