"""The report: one self-contained HTML file; beside it tables in Markdown and LaTeX, and all values."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.eval.report.findings import answers, summary
from mixlm_rerank.eval.report.frontier import frontier_picture
from mixlm_rerank.eval.report.grids import big_table, collection_tables, latex_table, markdown_table
from mixlm_rerank.eval.report.pictures import budget_picture, depth_picture, slice_pictures
from mixlm_rerank.eval.report.svg import LOOKS
from mixlm_rerank.eval.results import CollectionResult, Evaluation
from mixlm_rerank.eval.standings import Row, Standings, cast, standings
from mixlm_rerank.eval.tables import markdown_escaped

__all__ = ["render", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write report.html, tables.md, tables.tex and queries.tsv into ``folder`` (made if needed). Returns the page path.

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
    found = answers(standings(evaluation))
    told = [f"**{markdown_escaped(head)}** {markdown_escaped(text)}\n\n" for head, text in found]
    texts = {
        "report.html": _page(evaluation),
        "tables.md": "".join(told) + markdown_table(evaluation),
        "tables.tex": latex_table(evaluation),
    }
    for name, text in texts.items():
        with writing(folder / name) as file:
            file.write(text)
    with writing(folder / "queries.tsv") as file:  # one line per system, measure and query
        rows = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        rows.writerow(["collection", "qid", "system", "measure", "value"])
        for collection in evaluation.collections:
            for system in collection.systems:
                for measure, values in system.per_query.items():
                    rows.writerows([collection.name, qid, system.name, measure, value] for qid, value in values.items())
    return folder / "report.html"


def render(template: str, **context: object) -> str:
    """Render one of our templates with style sheet and script inlined. Only ``svg`` in ``context`` is not escaped.

    The page's content policy lets a browser load nothing and run no other script, whatever a document contains.
    """
    with optional_import("reports need jinja2", "eval"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    loader, strict = FileSystemLoader(TEMPLATES), StrictUndefined
    environment = Environment(loader=loader, autoescape=True, undefined=strict, trim_blocks=True, lstrip_blocks=True)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template(template).render(
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=script,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        looks=LOOKS,
        numbers=numbers,
        **context,
    )


def _page(evaluation: Evaluation) -> str:
    table, collections = standings(evaluation), evaluation.collections
    featured = cast(table)
    judged = next((measure for measure in evaluation.measures if measure.startswith("Judged")), None)
    stages = list(dict.fromkeys(one.first_stage for one in collections))
    stage = stages[0] if len(stages) == 1 else f"{len(stages)} first stages"
    systems = [system for one in collections for system in one.systems]
    count = len({system.name for system in systems})
    where = collections[0].name if len(collections) == 1 else f"{len(collections)} collections"
    return render(
        "report.html",
        evaluation=evaluation,
        heading=f"Reranking {stage}: {count} system{'s' if count > 1 else ''} on {where}",
        created=numbers.moment(evaluation.created),
        findings=summary(table, judged),
        frontier=frontier_picture(table),
        big_table=big_table(table),
        descriptions=list(_descriptions(table)),
        sections=[_section(table, *pair, evaluation.measures, featured) for pair in enumerate(collections)],
        baseline=table.against,
        judged=judged,
        systems=systems,
    )


def _descriptions(table: Standings) -> Iterator[tuple[Row, str, str]]:
    """Row, description, and its collections ("" for all). A row has several if its seeds or collections differ."""
    for row in table.rows:
        texts: dict[str, list[str]] = {}
        for collection, systems in zip(table.collections, row.seeds, strict=True):
            for text in dict.fromkeys(system.description for system in systems):
                texts.setdefault(text, []).append(collection)
        everywhere = max(map(len, texts.values()))
        for text, where in texts.items():
            if text:
                yield row, text, numbers.listed(where) if len(where) < everywhere else ""


def _section(
    table: Standings, column: int, collection: CollectionResult, measures: list[str], featured: Sequence[Row]
) -> dict[str, Any]:
    """Template values of one collection's section; ``column``: the collection's place in the table."""
    anchor = f"collection-{column + 1}"
    legend = [row for row in featured if row.on[column]]
    pictures = [
        depth_picture(table, column, legend, f"{anchor}-depth"),
        budget_picture(table, column, legend, f"{anchor}-budget"),
        *slice_pictures(table, column, legend, f"{anchor}-slice"),
    ]
    return {
        "anchor": anchor,
        "collection": collection,
        "tables": collection_tables(table, column, collection, measures),
        "legend": legend,
        "pictures": list(filter(None, pictures)),
    }
