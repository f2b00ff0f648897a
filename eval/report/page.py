"""The report: one HTML file that needs nothing else; tables in Markdown and LaTeX, and all values, beside it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from pathlib import Path

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.eval.report.answers import answers
from mixlm_rerank.eval.report.cast import LOOKS, cast
from mixlm_rerank.eval.report.frontier import frontier_picture
from mixlm_rerank.eval.report.grids import big_table
from mixlm_rerank.eval.report.sections import describe_systems, heading, moment, section
from mixlm_rerank.eval.report.summary import summary
from mixlm_rerank.eval.results import Evaluation
from mixlm_rerank.eval.standings import standings
from mixlm_rerank.eval.tables import latex_table, markdown_escaped, markdown_table

__all__ = ["render", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write report.html, tables.md, tables.tex and queries.tsv into ``folder`` (made if needed); the path of the page.

    Raises:
        InputError: an evaluation without collections or systems; a folder that cannot be written.
        MissingDependency: jinja2 or matplotlib is not installed.
    """
    empty = [collection.name for collection in evaluation.collections if not collection.systems]
    if not evaluation.collections or empty:
        where = f"the collection {empty[0]} has" if empty else "it has no collections and"
        raise InputError(f"there is nothing to report in this evaluation: {where} no systems")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None
    texts = {
        "report.html": _page(evaluation),
        "tables.md": _answered(evaluation) + markdown_table(evaluation),
        "tables.tex": latex_table(evaluation),
        "queries.tsv": _values(evaluation),
    }
    for name, text in texts.items():
        with writing(folder / name) as file:
            file.write(text)
    return folder / "report.html"


def render(template: str, **context: object) -> str:
    """A template of ours with style sheet and script inlined. Everything in ``context`` is escaped but ``svg``.

    The page's own policy lets a browser load nothing and run no script but this one, whatever a document contains.
    """
    with optional_import("reports need jinja2", "eval"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template(template).render(
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=script,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        looks=LOOKS,
        measure=numbers.measure,
        **context,
    )


def _answered(evaluation: Evaluation) -> str:
    """The answers as Markdown, to stand above the tables."""
    found = answers(standings(evaluation))
    return "".join(f"**{markdown_escaped(one.head)}** {markdown_escaped(one.text)}\n\n" for one in found)


def _values(evaluation: Evaluation) -> str:
    """Every measure of every system on every query, one a line."""
    text = io.StringIO()
    rows = csv.writer(text, dialect="excel-tab", lineterminator="\n")
    rows.writerow(["collection", "qid", "system", "measure", "value"])
    rows.writerows(
        [collection.name, qid, system.name, measure, value]
        for collection in evaluation.collections
        for system in collection.systems
        for measure, values in system.per_query.items()
        for qid, value in values.items()
    )
    return text.getvalue()


def _page(evaluation: Evaluation) -> str:
    table = standings(evaluation)
    featured = cast(table)
    systems = [system for collection in evaluation.collections for system in collection.systems]
    judged = next((measure for measure in evaluation.measures if measure.startswith("Judged")), None)
    return render(
        "report.html",
        evaluation=evaluation,
        heading=heading(evaluation),
        created=moment(evaluation.created),
        findings=summary(table, judged),
        frontier=frontier_picture(table),
        big_table=big_table(table),
        descriptions=describe_systems(table),
        sections=[
            section(table, column, collection, evaluation.measures, featured)
            for column, collection in enumerate(evaluation.collections)
        ],
        baseline=table.baseline or "the collection's baseline",
        judged=judged,
        compared=any(system.comparison for system in systems),
        faithful=any(system.fidelity for system in systems),
        timed=any(system.efficiency for system in systems),
    )
