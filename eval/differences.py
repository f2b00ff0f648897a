"""What differs between two evaluations: for every system in both, quality with its tests, and speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.pairs import compare_pairs
from mixlm_rerank.eval.results import CollectionResult, Evaluation, SystemResult
from mixlm_rerank.eval.significance import Comparison
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
    before = {collection.name: collection for collection in a.collections}
    after = {collection.name: collection for collection in b.collections}
    common = [name for name in after if name in before]
    if not common:
        raise InputError(f"no collection is in both: {names[0]} has {_some(before)}, {names[1]} has {_some(after)}")
    machines = {key: (a.machine.get(key, ""), b.machine.get(key, "")) for key in a.machine | b.machine}
    return EvaluationDifference(
        names,
        measure,
        {key: pair for key, pair in machines.items() if pair[0] != pair[1]},
        tuple(_collection(before[name], after[name], measure, permutations) for name in common),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
    )


def _collection(a: CollectionResult, b: CollectionResult, measure: str, permutations: int) -> CollectionDifference:
    before = {system.name: system for system in a.systems}
    after = {system.name: system for system in b.systems}
    common = [name for name in after if name in before]
    obstacles = _obstacles(a, b, measure)
    pairs = {
        name: (before[name].per_query.get(measure, {}), after[name].per_query.get(measure, {}))
        for name in common
        if not obstacles and kind_of(b, after[name]) not in ("first stage", "oracle")
    }
    comparisons = compare_pairs(pairs, permutations=permutations)
    return CollectionDifference(
        b.name,
        obstacles,
        tuple(
            SystemDifference(
                name,
                kind_of(b, after[name]),
                before[name].measures[measure],
                after[name].measures[measure],
                comparisons.get(name),
                _speed_ratio(before[name], after[name]),
            )
            for name in common
        ),
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
    )


def _obstacles(a: CollectionResult, b: CollectionResult, measure: str) -> tuple[str, ...]:
    """What makes a difference between systems say little about the systems."""
    found = []
    queries_a, queries_b = (
        {qid for system in one.systems for qid in system.per_query.get(measure, {})} for one in (a, b)
    )
    if queries_a != queries_b:
        only_a, only_b, both = queries_a - queries_b, queries_b - queries_a, queries_a & queries_b
        found.append(f"other judged queries ({len(both)} in both, {len(only_a)} only before, {len(only_b)} only after)")
    if None not in (a.documents, b.documents) and a.documents != b.documents:
        found.append(f"another corpus ({a.documents:,} documents, then {b.documents:,})")
    if a.depth != b.depth:
        found.append(f"another depth ({a.depth:,} candidates, then {b.depth:,})")
    if a.first_stage != b.first_stage:
        found.append(f"another first stage ({a.first_stage}, then {b.first_stage})")
    else:
        first_a, first_b = (_first_stage(one) for one in (a, b))
        if first_a and first_b and _moved(first_a.per_query.get(measure, {}), first_b.per_query.get(measure, {})):
            values = [numbers.measure(system.measures[measure]) for system in (first_a, first_b)]
            found.append(f"other results of the first stage {a.first_stage} ({measure} {values[0]}, then {values[1]})")
    return tuple(found)


def _moved(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Some query that both answer has another value."""
    return any(abs(before[qid] - after[qid]) > TOLERANCE for qid in before.keys() & after.keys())


def _speed_ratio(a: SystemResult, b: SystemResult) -> float | None:
    if a.efficiency is None or b.efficiency is None or not a.efficiency.documents_per_second:
        return None
    return b.efficiency.documents_per_second / a.efficiency.documents_per_second


def _first_stage(collection: CollectionResult) -> SystemResult | None:
    return next((one for one in collection.systems if kind_of(collection, one) == "first stage"), None)


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "")
