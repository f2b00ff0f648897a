"""What differs between two evaluations: for every system in both, quality with its tests, and speed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.results import CollectionResult, Evaluation
from mixlm_rerank.eval.significance import Comparison, compare_pairs
from mixlm_rerank.eval.standings import kind_of
from mixlm_rerank.systems.protocol import Kind

__all__ = ["CollectionDifference", "EvaluationDifference", "SystemDifference", "compare_evaluations"]

TOLERANCE = 1e-6  # two computations of the same measure


@dataclass(frozen=True)
class SystemDifference:
    """A system that both evaluations have.

    Attributes:
        a, b: the measure in each.
        comparison: b against a, Holm-corrected over the systems tested on the collection; None if it was not tested.
        speed_ratio: documents/s of b over those of a; None unless both were timed.
    """

    name: str
    kind: Kind
    a: float
    b: float
    comparison: Comparison | None
    speed_ratio: float | None


@dataclass(frozen=True)
class CollectionDifference:
    """A collection that both evaluations have.

    Attributes:
        obstacles: why the systems were not tested, in words; empty if they were.
        systems: those in both, in b's order.
        only_a, only_b: systems in one of them.
    """

    name: str
    obstacles: tuple[str, ...]
    systems: tuple[SystemDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationDifference:
    """Two evaluations.

    Attributes:
        names: what a and b are called.
        measure: what both are compared on.
        machines: what differs between the machines, name -> (a's value, b's), "" where one does not say. If there is
            anything, speeds are not comparable.
        collections: those in both, in b's order.
        only_a, only_b: collections in one of them.
    """

    names: tuple[str, str]
    measure: str
    machines: dict[str, tuple[str, str]]
    collections: tuple[CollectionDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare_evaluations(
    a: Evaluation, b: Evaluation, *, names: tuple[str, str] = ("A", "B"), permutations: int = 20_000
) -> EvaluationDifference:
    """``b`` against ``a`` for the collections and systems that both have, by their names.

    On b's main measure, or the first of its measures that ``a`` has.

    A collection is tested if both took the same queries, depth and first stage (by name and by result): the t-test and
    the randomisation test of :func:`compare`, paired by query. First stage and oracle are never tested.

    Raises InputError if no measure, or no collection, is in both.
    """
    measure = next((measure for measure in b.measures if measure in a.measures), None)
    if measure is None:
        measured = f"{names[0]} has {', '.join(a.measures)}, {names[1]} has {', '.join(b.measures)}"
        raise InputError(f"no measure is in both: {measured}. Evaluate both by the same")
    before, after = ({one.name: one for one in evaluation.collections} for evaluation in (a, b))
    common, only_a, only_b = _sorted_out(before, after)
    if not common:
        raise InputError(
            f"no collection is in both: {names[0]} has {some_ids(before)}, {names[1]} has {some_ids(after)}"
        )
    machines = {key: (a.machine.get(key, ""), b.machine.get(key, "")) for key in a.machine | b.machine}
    return EvaluationDifference(
        names,
        measure,
        {key: pair for key, pair in machines.items() if pair[0] != pair[1]},
        tuple(_collection(before[name], after[name], measure, permutations) for name in common),
        only_a,
        only_b,
    )


def _sorted_out(a: Iterable[str], b: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Names in both, in b's order; in a alone; in b alone."""
    a, b = tuple(a), tuple(b)
    return tuple(n for n in b if n in a), tuple(n for n in a if n not in b), tuple(n for n in b if n not in a)


def _collection(a: CollectionResult, b: CollectionResult, measure: str, permutations: int) -> CollectionDifference:
    before, after = ({system.name: system for system in one.systems} for one in (a, b))
    common, only_a, only_b = _sorted_out(before, after)
    kinds = {name: kind_of(b, after[name]) for name in common}
    obstacles = _obstacles(a, b, measure)
    pairs = {
        name: (before[name].per_query.get(measure, {}), after[name].per_query.get(measure, {}))
        for name in common
        if not obstacles and kinds[name] not in ("first stage", "oracle")
    }
    tested = {found.system: found for found in compare_pairs(pairs, permutations=permutations)}
    systems = []
    for name in common:
        old, new = before[name], after[name]
        speeds = [one.efficiency.documents_per_second for one in (old, new) if one.efficiency]
        ratio = speeds[1] / speeds[0] if len(speeds) == 2 and speeds[0] else None
        values = old.measures[measure], new.measures[measure]
        systems.append(SystemDifference(name, kinds[name], *values, tested.get(name), ratio))
    return CollectionDifference(b.name, obstacles, tuple(systems), only_a, only_b)


def _obstacles(a: CollectionResult, b: CollectionResult, measure: str) -> tuple[str, ...]:
    """What makes a difference between systems say little about the systems."""
    found = []
    old, new = ({qid for system in one.systems for qid in system.per_query.get(measure, {})} for one in (a, b))
    if old != new:
        counts = f"{len(old & new)} in both, {len(old - new)} only before, {len(new - old)} only after"
        found.append(f"other judged queries ({counts})")
    if None not in (a.documents, b.documents) and a.documents != b.documents:
        found.append(f"another corpus ({a.documents:,} documents, then {b.documents:,})")
    if a.depth != b.depth:
        found.append(f"another depth ({a.depth:,} candidates, then {b.depth:,})")
    if a.first_stage != b.first_stage:
        found.append(f"another first stage ({a.first_stage}, then {b.first_stage})")
        return tuple(found)
    stages = [system for one in (a, b) for system in one.systems if kind_of(one, system) == "first stage"]
    values = [system.per_query.get(measure, {}) for system in stages]
    if len(stages) == 2 and any(
        abs(values[0][q] - values[1][q]) > TOLERANCE for q in values[0].keys() & values[1].keys()
    ):
        means = [numbers.measure(system.measures[measure]) for system in stages]
        found.append(f"other results of the first stage {a.first_stage} ({measure} {means[0]}, then {means[1]})")
    return tuple(found)
