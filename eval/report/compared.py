"""The difference between two evaluations, as text for a terminal, as Markdown, as an HTML page."""

from __future__ import annotations

from collections import Counter

from mixlm_rerank import numbers
from mixlm_rerank.eval.differences import CollectionDifference, EvaluationDifference, SystemDifference
from mixlm_rerank.eval.report.grids import difference_cell, tests
from mixlm_rerank.eval.report.page import render
from mixlm_rerank.eval.tables import Cell, Column, Table, aligned, field, filled, listed, markdown, markdown_escaped

__all__ = ["comparison_html", "comparison_markdown", "comparison_text"]

TESTS = (
    "Tests: paired t-test and paired randomisation test over the same queries, two-sided; significant is p < .05 after "
    "Holm's correction over the systems of a collection."
)


def comparison_text(found: EvaluationDifference) -> str:
    """For a terminal: what holds overall, then a table for each collection."""
    parts = overview(found)
    for name, remarks, table in _sections(found):
        parts += [f"\n{name}", *remarks, *([aligned(table)] if table else [])]
    return "\n".join(parts) + "\n"


def comparison_markdown(found: EvaluationDifference) -> str:
    """For a pull request: the same, as Markdown."""
    parts = [*map(markdown_escaped, overview(found))]
    for name, remarks, table in _sections(found):
        parts += [
            f"## {markdown_escaped(name)}",
            *map(markdown_escaped, remarks),
            *([markdown(table)] if table else []),
        ]
    return "\n\n".join(parts) + "\n"


def comparison_html(found: EvaluationDifference) -> str:
    """The same as one page that needs nothing else."""
    heading = f"{found.names[1]} against {found.names[0]}"
    return render("comparison.html", heading=heading, overview=overview(found), sections=_sections(found))


def overview(found: EvaluationDifference) -> list[str]:
    """What was compared, how often the difference is significant, and what cannot be compared."""
    a, b = found.names
    systems = [system for one in found.collections for system in one.systems]
    verdicts = Counter(system.comparison.verdict for system in systems if system.comparison)
    sentences = [f"{found.measure}: {b} against {a}, the systems and collections that both have."]
    if verdicts:
        counts = [f"{kind.words} in {verdicts[kind]}" for kind in sorted(verdicts, reverse=True)]
        sentences.append(f"Pairs tested: {verdicts.total()}; {listed(counts)}. {TESTS}")
    if found.machines:
        machines = {key: [value or "not known" for value in pair] for key, pair in found.machines.items()}
        changed = [f"{key} {old}, then {new}" for key, (old, new) in machines.items()]
        sentences.append(f"The machines differ, so speeds are not comparable: {'; '.join(changed)}.")
    for name, only in zip(found.names, (found.only_a, found.only_b), strict=True):
        if only:
            sentences.append(f"Collections only in {name}: {listed(only)}.")
    return sentences


def _sections(found: EvaluationDifference) -> list[tuple[str, list[str], Table | None]]:
    """Name, remarks and table of each collection."""
    sections = []
    for one in found.collections:
        remarks = [f"Not tested: {listed(one.obstacles)}."] if one.obstacles else []
        for name, only in zip(found.names, (one.only_a, one.only_b), strict=True):
            remarks += [f"Only in {name}: {', '.join(only)}."] if only else []
        sections.append((one.name, remarks, _table(one, *found.names)))
    return sections


def _table(collection: CollectionDifference, a: str, b: str) -> Table | None:
    def difference(system: SystemDifference) -> Cell:
        return difference_cell(system.b - system.a, system.comparison)

    columns = [
        field("a", a, ""),
        field("b", b, ""),
        (Column("difference", marked=True), difference),
        *tests("", f"queries on which {b} is better/worse"),
        field("speed_ratio", "speed", f"documents/s of {b} over those of {a}", numbers.ratio),
    ]
    return filled(collection.name, columns, [(system.name, system.kind, system) for system in collection.systems])
