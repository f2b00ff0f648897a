"""Differences between two evaluations: for every system in both, quality with significance tests, and speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.report.grids import tests
from mixlm_rerank.eval.report.page import render
from mixlm_rerank.eval.results import CollectionResult, Evaluation
from mixlm_rerank.eval.significance import Comparison, compare_pairs
from mixlm_rerank.eval.standings import kind_of
from mixlm_rerank.eval.tables import Cell, Column, Columns, Table, aligned, field, filled
from mixlm_rerank.systems.protocol import Kind

__all__ = ["CollectionDifference", "EvaluationDifference", "SystemDifference", "compare_evaluations"]
__all__ += ["comparison_html", "comparison_text"]

PERMUTATIONS = 20_000
TOLERANCE = 1e-6  # between two computations of the same measure
TESTS = (
    "Tests: paired t-test and paired randomisation test over the same queries, two-sided; significant is p < .05 after "
    "Holm's correction over the systems of a collection."
)


@dataclass(frozen=True)
class SystemDifference:
    """A system that both evaluations have."""

    name: str
    kind: Kind
    a: float  # the measure in each evaluation
    b: float
    comparison: Comparison | None  # b against a; None if it was not tested
    speed_ratio: float | None  # documents/s of b over those of a; None unless both were timed


@dataclass(frozen=True)
class CollectionDifference:
    """A collection that both evaluations have."""

    name: str
    obstacles: tuple[str, ...]  # why its systems were not tested, in words
    systems: tuple[SystemDifference, ...]  # in both, in b's order
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationDifference:
    """Two evaluations, A and B, and the measure that both are compared on."""

    measure: str
    # Differences between the machines, name -> (a's value, b's), "" if unknown; with any, speeds are not comparable.
    machines: dict[str, tuple[str, str]]
    collections: tuple[CollectionDifference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare_evaluations(a: Evaluation, b: Evaluation) -> EvaluationDifference:
    """Compare ``b`` with ``a`` on the collections and systems that both have, matched by name.

    The measure is b's main measure, or the first of its measures that ``a`` has.

    A collection is tested if both used the same queries, depth and first stage (by name and by result), with the t-test
    and the randomisation test of :func:`compare`, paired by query. First stage and oracle are never tested.

    Raises InputError if no measure, or no collection, is in both.
    """
    measure = next((measure for measure in b.measures if measure in a.measures), None)
    if measure is None:
        measured = f"A has {', '.join(a.measures)}, B has {', '.join(b.measures)}"
        raise InputError(f"no measure is in both: {measured}. Evaluate both by the same")
    before, after = ({one.name: one for one in evaluation.collections} for evaluation in (a, b))
    common, only_a, only_b = _sorted_out(before, after)
    if not common:
        raise InputError(f"no collection is in both: A has {some_ids(before)}, B has {some_ids(after)}")
    machines = {key: (a.machine.get(key, ""), b.machine.get(key, "")) for key in a.machine | b.machine}
    differing = {key: pair for key, pair in machines.items() if pair[0] != pair[1]}
    collections = tuple(_collection(before[name], after[name], measure) for name in common)
    return EvaluationDifference(measure, differing, collections, only_a, only_b)


def comparison_text(found: EvaluationDifference) -> str:
    """The comparison as text for a terminal: an overview, then a table for each collection."""
    lines = list(_overview(found))
    for name, remarks, table in _sections(found):
        lines += ["", name, *remarks, *([aligned(table)] if table else [])]
    return "\n".join(lines) + "\n"


def comparison_html(found: EvaluationDifference) -> str:
    """The comparison as one self-contained HTML page."""
    return render("comparison.html", heading="B against A", overview=_overview(found), sections=_sections(found))


def _sorted_out(a: Iterable[str], b: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Names in both, in b's order; names only in a; names only in b."""
    a, b = tuple(a), tuple(b)
    return tuple(n for n in b if n in a), tuple(n for n in a if n not in b), tuple(n for n in b if n not in a)


def _collection(a: CollectionResult, b: CollectionResult, measure: str) -> CollectionDifference:
    before, after = ({system.name: system for system in one.systems} for one in (a, b))
    common, only_a, only_b = _sorted_out(before, after)
    pairs = {name: (before[name], after[name], kind_of(b, after[name])) for name in common}
    obstacles = tuple(_obstacles(a, b, measure))
    values = {
        name: (old.per_query.get(measure, {}), new.per_query.get(measure, {}))
        for name, (old, new, kind) in pairs.items()
        if not obstacles and kind not in ("first stage", "oracle")
    }
    tested = {found.system: found for found in compare_pairs(values, permutations=PERMUTATIONS)}
    systems = []
    for name, (old, new, kind) in pairs.items():
        speeds = [one.efficiency.documents_per_second for one in (old, new) if one.efficiency]
        ratio = speeds[1] / speeds[0] if len(speeds) == 2 and speeds[0] else None
        found = SystemDifference(name, kind, old.measures[measure], new.measures[measure], tested.get(name), ratio)
        systems.append(found)
    return CollectionDifference(b.name, obstacles, tuple(systems), only_a, only_b)


def _obstacles(a: CollectionResult, b: CollectionResult, measure: str) -> Iterator[str]:
    """Reasons why a difference between the two evaluations says little about the systems."""
    old, new = ({qid for system in one.systems for qid in system.per_query.get(measure, {})} for one in (a, b))
    if old != new:
        counts = f"{len(old & new)} in both, {len(old - new)} only before, {len(new - old)} only after"
        yield f"other judged queries ({counts})"
    if None not in (a.documents, b.documents) and a.documents != b.documents:
        yield f"another corpus ({a.documents:,} documents, then {b.documents:,})"
    if a.depth != b.depth:
        yield f"another depth ({a.depth:,} candidates, then {b.depth:,})"
    stages = [system for one in (a, b) for system in one.systems if kind_of(one, system) == "first stage"]
    if a.first_stage != b.first_stage:
        yield f"another first stage ({a.first_stage}, then {b.first_stage})"
    elif len(stages) == 2:
        x, y = (system.per_query.get(measure, {}) for system in stages)
        if any(abs(x[qid] - y[qid]) > TOLERANCE for qid in x.keys() & y.keys()):
            means = ", then ".join(numbers.measure(system.measures[measure]) for system in stages)
            yield f"other results of the first stage {a.first_stage} ({measure} {means})"


def _overview(found: EvaluationDifference) -> Iterator[str]:
    """What was compared, how often the difference is significant, and what cannot be compared."""
    systems = [system for one in found.collections for system in one.systems]
    verdicts = Counter(system.comparison.verdict for system in systems if system.comparison)
    yield f"{found.measure}: B against A, the systems and collections that both have."
    if verdicts:
        counts = [f"{kind.words} in {verdicts[kind]}" for kind in sorted(verdicts, reverse=True)]
        yield f"Pairs tested: {verdicts.total()}; {numbers.listed(counts)}. {TESTS}"
    if found.machines:
        changed = [f"{key} {', then '.join(one or 'not known' for one in own)}" for key, own in found.machines.items()]
        yield f"The machines differ, so speeds are not comparable: {'; '.join(changed)}."
    for name, own in (("A", found.only_a), ("B", found.only_b)):
        if own:
            yield f"Collections only in {name}: {numbers.listed(own)}."


def _sections(found: EvaluationDifference) -> Iterator[tuple[str, list[str], Table | None]]:
    """Name, remarks and table of each collection."""
    columns: Columns = [
        field("a", "A", ""),
        field("b", "B", ""),
        (Column("difference", marked=True), _difference),
        *tests("", "queries on which B is better/worse"),
        field("speed_ratio", "speed", "documents/s of B over those of A", numbers.ratio),
    ]
    for one in found.collections:
        remarks = [f"Not tested: {numbers.listed(one.obstacles)}."] if one.obstacles else []
        only = ("A", one.only_a), ("B", one.only_b)
        remarks += [f"Only in {name}: {', '.join(own)}." for name, own in only if own]
        yield one.name, remarks, filled(one.name, columns, [(own.name, own.kind, own) for own in one.systems])


def _difference(system: SystemDifference) -> Cell:
    mark = system.comparison.verdict.sign if system.comparison else ""
    return Cell(numbers.difference(system.b - system.a), system.b - system.a, mark=mark)
