"""The big table, systems against collections, for a README (Markdown) and for a paper (LaTeX, booktabs); one for each
measure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mixlm_rerank import numbers
from mixlm_rerank.eval.results import Evaluation
from mixlm_rerank.eval.significance import Interval
from mixlm_rerank.eval.standings import Cell, Row, Standings, Verdict, standings

__all__ = ["SIGNS", "latex_table", "markdown_escaped", "markdown_table", "marks_explained"]

SIGNS = {Verdict.BETTER: "▲", Verdict.BETTER_IN_ONE: "△", Verdict.WORSE_IN_ONE: "▽", Verdict.WORSE: "▼"}
ARROWS = {  # all of them in plain LaTeX
    Verdict.BETTER: r"$^{\Uparrow}$",
    Verdict.BETTER_IN_ONE: r"$^{\uparrow}$",
    Verdict.WORSE_IN_ONE: r"$^{\downarrow}$",
    Verdict.WORSE: r"$^{\Downarrow}$",
}
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
NONE = "–"


def markdown_table(evaluation: Evaluation) -> str:
    """Every measure of every system on every collection, its mean, and documents/s where they were measured.

    Best values are bold, 95% intervals in brackets; marks say where a difference to the baseline is significant on the
    main measure. The line below each table says what it holds.
    """
    return "\n".join(_markdown(standings(evaluation, measure)) for measure in evaluation.measures)


def latex_table(evaluation: Evaluation) -> str:
    r"""The same as a ``table`` with a caption for each measure, for ``\usepackage{booktabs}``; names are escaped."""
    tables = [_latex(standings(evaluation, measure)) for measure in evaluation.measures]
    return "\n".join([r"% needs \usepackage{booktabs}", *tables])


def _markdown(table: Standings) -> str:
    columns, rows = _cells(table, markdown_escaped, lambda text: f"**{text}**", str, SIGNS)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{drawn}\n\n{markdown_escaped(marks_explained(table))}\n"


def _latex(table: Standings) -> str:
    columns, rows = _cells(
        table, _latex_text, lambda text: rf"\textbf{{{text}}}", lambda text: rf"{{\scriptsize {text}}}", ARROWS
    )
    arrows = {SIGNS[found]: arrow for found, arrow in ARROWS.items()}
    caption = re.sub("[▲△▽▼]", lambda match: arrows[match[0]], _latex_text(marks_explained(table)))
    body = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            " & ".join(columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def marks_explained(table: Standings) -> str:
    """What is in the big table, in words; only the marks that it has."""
    parts = [f"{table.measure} over all judged queries (n); best in bold (the oracle apart)."]
    if any(cell and cell.interval for row in table.rows for cell in row.cells):
        parts.append("Intervals: 95%, bootstrap over queries.")
    if len(table.collections) > 1:
        parts.append("Mean: over collections, not tested.")
    if any(row.seeds > 1 for row in table.rows):
        parts.append("Several seeds: their mean ± the standard deviation of their means; a mark holds for every seed.")
    verdicts = {cell.verdict for row in table.rows for cell in row.cells if cell}
    against = table.baseline or "the collection's baseline"
    words = {
        Verdict.BETTER: f"significantly better than {against} by both paired tests",
        Verdict.WORSE: f"significantly worse than {against} by both paired tests",
        Verdict.BETTER_IN_ONE: "better by one of the two tests only",
        Verdict.WORSE_IN_ONE: "worse by one of the two tests only",
    }
    marks = [f"{SIGNS[found]} {text}" for found, text in words.items() if found in verdicts]
    if marks:
        parts.append(f"{'; '.join(marks)} (t-test and randomisation test, p < .05 after Holm's correction).")
    elif verdicts - {None}:
        parts.append(f"No difference to {against} is significant (paired t-test and randomisation test, Holm).")
    return " ".join(parts)


def _cells(
    table: Standings,
    escape: Callable[[str], str],
    bold: Callable[[str], str],
    small: Callable[[str], str],
    marks: Mapping[Verdict, str],
) -> tuple[list[str], list[list[str]]]:
    """Column heads and rows, escaped and marked up."""
    several = len(table.collections) > 1
    timed = any(row.documents_per_second is not None for row in table.rows)
    columns = ["system", *table.heads, *["mean"] * several, *["documents/s"] * timed]

    def value(cell: Cell | None) -> str:
        if cell is None:
            return NONE
        text = numbers.measure(cell.value)
        mark = marks.get(cell.verdict, "") if cell.verdict else ""
        return (bold(text) if cell.best else text) + mark + interval(cell.interval)

    def mean(row: Row) -> str:
        if row.mean is None:
            return NONE
        text = numbers.measure(row.mean)
        spread = f" {escape('±')} {numbers.measure(row.sd)}" if row.sd is not None else ""
        return (bold(text) if row.best else text) + spread + interval(row.interval)

    def interval(ends: Interval | None) -> str:
        return "" if ends is None else " " + small(f"({escape(numbers.interval(ends))})")

    def speed(row: Row) -> str:
        return NONE if row.documents_per_second is None else numbers.speed(row.documents_per_second)

    rows = [
        [escape(row.name), *map(value, row.cells), *[mean(row)] * several, *[speed(row)] * timed] for row in table.rows
    ]
    return [escape(column) for column in columns], rows


def markdown_escaped(text: str) -> str:
    """One line of text whose characters mean nothing to Markdown, in a table too.

    >>> print(markdown_escaped("a|b *c* <d>"))
    a\\|b \\*c\\* \\<d\\>
    """
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", " ".join(text.split()))


def _latex_text(text: str) -> str:
    r"""
    >>> print(_latex_text("50% of R&D_x"))
    50\% of R\&D\_x
    """
    return "".join(LATEX_SPECIAL.get(char, char) for char in " ".join(text.split()))
