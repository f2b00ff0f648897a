"""The difference between two evaluations, as text for a terminal, as Markdown, as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator

from mixlm_rerank import numbers
from mixlm_rerank.eval.differences import CollectionDifference, EvaluationDifference, SystemDifference
from mixlm_rerank.eval.report.page import render
from mixlm_rerank.eval.report.view import EMPTY, Cell, Column, Line, Table, listed, value_cell
from mixlm_rerank.eval.standings import Verdict, verdict
from mixlm_rerank.eval.tables import SIGNS, markdown_escaped

__all__ = ["comparison_html", "comparison_markdown", "comparison_text"]

COUNTED = {
    Verdict.BETTER: "significantly better",
    Verdict.BETTER_IN_ONE: "better by one of the two tests only",
    Verdict.NO_DIFFERENCE: "not significantly different",
    Verdict.WORSE_IN_ONE: "worse by one of the two tests only",
    Verdict.WORSE: "significantly worse",
}
TESTS = (
    "Tests: paired t-test and paired randomisation test over the same queries, two-sided; significant is p < .05 after "
    "Holm's correction over the systems of a collection."
)


def comparison_text(found: EvaluationDifference) -> str:
    """For a terminal: what holds overall, then a table for each collection."""
    parts = [*overview(found)]
    for collection in found.collections:
        parts += [f"\n{collection.name}", *_remarks(collection, found.names)]
        table = _table(collection, found.names)
        if table is not None:
            parts.append(_aligned(table))
    return "\n".join(parts) + "\n"


def comparison_markdown(found: EvaluationDifference) -> str:
    """For a pull request: the same, as Markdown."""
    parts = [markdown_escaped(sentence) for sentence in overview(found)]
    for collection in found.collections:
        parts.append(f"## {markdown_escaped(collection.name)}")
        parts += [markdown_escaped(remark) for remark in _remarks(collection, found.names)]
        table = _table(collection, found.names)
        if table is not None:
            lines = [[markdown_escaped(cell) for cell in row] for row in _texts(table)]
            lines.insert(1, ["---", *["---:"] * len(table.columns)])
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def comparison_html(found: EvaluationDifference) -> str:
    """The same as one page that needs nothing else."""
    return render(
        "comparison.html",
        heading=f"{found.names[1]} against {found.names[0]}",
        overview=overview(found),
        sections=[
            (collection.name, _remarks(collection, found.names), _table(collection, found.names))
            for collection in found.collections
        ],
    )


def overview(found: EvaluationDifference) -> list[str]:
    """What was compared, how often the difference is significant, and what cannot be compared."""
    a, b = found.names
    verdicts = [_verdict(system) for one in found.collections for system in one.systems if system.comparison]
    sentences = [f"{found.measure}: {b} against {a}, the systems and collections that both have."]
    if verdicts:
        counts = [f"{words} in {verdicts.count(kind)}" for kind, words in COUNTED.items() if kind in verdicts]
        sentences.append(f"Pairs tested: {len(verdicts)}; {b} is {listed(counts)}. {TESTS}")
    if found.machines:
        changed = [f"{key} {_or_none(old)}, then {_or_none(new)}" for key, (old, new) in found.machines.items()]
        sentences.append(f"The machines differ, so speeds are not comparable: {'; '.join(changed)}.")
    for name, only in zip(found.names, (found.only_a, found.only_b), strict=True):
        if only:
            sentences.append(f"Collections only in {name}: {listed(only)}.")
    return sentences


def _remarks(collection: CollectionDifference, names: tuple[str, str]) -> list[str]:
    remarks = [f"Not tested: {listed(collection.obstacles)}."] if collection.obstacles else []
    for name, only in zip(names, (collection.only_a, collection.only_b), strict=True):
        if only:
            remarks.append(f"Only in {name}: {', '.join(only)}.")
    return remarks


def _table(collection: CollectionDifference, names: tuple[str, str]) -> Table | None:
    a, b = names
    columns = (
        Column(a),
        Column(b),
        Column("difference", marked=True),
        Column("p, t-test"),
        Column("p, random."),
        Column("wins/losses", f"queries on which {b} is better/worse"),
        Column("speed", f"documents/s of {b} over those of {a}"),
    )

    def cells(system: SystemDifference) -> Iterator[Cell]:
        yield value_cell(system.a, numbers.measure)
        yield value_cell(system.b, numbers.measure)
        change, tests = system.b - system.a, system.comparison
        yield Cell(numbers.difference(change), change, mark=SIGNS.get(_verdict(system), ""))
        if tests is None:
            yield from [EMPTY] * 3
        else:
            yield value_cell(tests.p_t, numbers.p_value)
            yield value_cell(tests.p_randomisation, numbers.p_value)
            yield Cell(f"{tests.wins}/{tests.losses}", tests.wins - tests.losses)
        yield value_cell(system.speed_ratio, numbers.ratio)

    lines = [Line(system.name, system.kind, tuple(cells(system))) for system in collection.systems]
    return Table(collection.name, columns, tuple(lines)).pruned()


def _verdict(system: SystemDifference) -> Verdict:
    return verdict(system.comparison) if system.comparison else Verdict.NO_DIFFERENCE


def _texts(table: Table) -> list[list[str]]:
    rows = [[line.name, *(cell.text + cell.mark for cell in line.cells)] for line in table.lines]
    return [[table.corner, *(column.head for column in table.columns)], *rows]


def _aligned(table: Table) -> str:
    """Columns in line, and digits under digits: numbers that may have a mark leave room for it."""
    rows = [[table.corner, *(f"{column.head} " if column.marked else column.head for column in table.columns)]]
    for line in table.lines:
        pairs = zip(table.columns, line.cells, strict=True)
        rows.append([line.name, *(cell.text + (cell.mark or " ") * column.marked for column, cell in pairs)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _or_none(value: str) -> str:
    return value or "not known"
