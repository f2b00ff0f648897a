"""An evaluation, cut into what the page shows: its heading, its systems, one section a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.budget import budget_picture
from mixlm_rerank.eval.report.depth import depth_picture
from mixlm_rerank.eval.report.grids import efficiency_table, fidelity_table, measures_table, pairs_table, seeds_table
from mixlm_rerank.eval.report.slices import slice_pictures
from mixlm_rerank.eval.report.view import Picture, Table, listed
from mixlm_rerank.eval.results import CollectionResult, Evaluation, Example
from mixlm_rerank.eval.standings import Row, Standings

__all__ = ["Description", "Section", "describe_systems", "heading", "moment", "section"]


@dataclass(frozen=True)
class Section:
    """One collection; what the evaluation lacks is not in the lists. ``legend``: the systems drawn in colour."""

    anchor: str
    name: str
    baseline: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...]
    legend: tuple[Row, ...]
    pictures: tuple[Picture, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Description:
    """What a system is, in the words of the evaluation; ``where``: the collections, if it is so on a part of them."""

    row: Row
    text: str
    where: str


def heading(evaluation: Evaluation) -> str:
    """What was compared: "Reranking BM25: 14 systems on 6 collections"."""
    collections = evaluation.collections
    names = list(dict.fromkeys(collection.first_stage for collection in collections))
    first_stages = names[0] if len(names) == 1 else f"{len(names)} first stages"
    systems = len({system.name for collection in collections for system in collection.systems})
    where = collections[0].name if len(collections) == 1 else f"{len(collections)} collections"
    return f"Reranking {first_stages}: {systems} system{'s' if systems > 1 else ''} on {where}"


def moment(created: str) -> str:
    """An ISO time as people write it; anything else as it is.

    >>> moment("2026-11-03T09:05:00+00:00"), moment("yesterday")
    ('3 November 2026, 09:05 UTC', 'yesterday')
    """
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{when.day} {when:%B %Y, %H:%M}{f' {when.tzname()}' if when.tzinfo else ''}"


def describe_systems(table: Standings) -> list[Description]:
    """Every system's description once; several where seeds differ, or it was another one elsewhere."""
    found = []
    for row in table.rows:
        texts: dict[str, list[str]] = {}
        for collection, systems in zip(table.collections, row.members, strict=True):
            for text in dict.fromkeys(system.description for system in systems):
                texts.setdefault(text, []).append(collection)
        everywhere = max(map(len, texts.values()))
        for text, where in texts.items():
            if text:
                found.append(Description(row, text, listed(where) if len(where) < everywhere else ""))
    return found


def section(
    table: Standings, column: int, collection: CollectionResult, measures: list[str], featured: Sequence[Row]
) -> Section:
    """All that there is to show of one collection; ``column``: its place in the table."""
    anchor = f"collection-{column + 1}"
    here = [row for row in featured if row.members[column]]
    tables = [
        measures_table(collection, measures),
        pairs_table(table, column),
        fidelity_table(collection, measures[0]),
        efficiency_table(collection),
        seeds_table(table, column, measures),
    ]
    pictures = [
        depth_picture(table, column, here, f"{anchor}-depth"),
        budget_picture(table, column, here, f"{anchor}-budget"),
        *slice_pictures(table, column, here, f"{anchor}-slice"),
    ]
    return Section(
        anchor,
        collection.name,
        collection.baseline,
        _facts(collection),
        tuple(found for found in tables if found is not None),
        tuple(here),
        tuple(found for found in pictures if found is not None),
        tuple(collection.examples),
    )


def _facts(collection: CollectionResult) -> tuple[str, ...]:
    facts = [
        f"{numbers.count(collection.documents)} documents" if collection.documents is not None else "",
        f"{numbers.count(collection.queries)} judged {'query' if collection.queries == 1 else 'queries'}",
        f"first stage {collection.first_stage}, {numbers.count(collection.depth)} candidates a query",
        f"baseline {collection.baseline}",
        f"teacher {collection.teacher}" if collection.teacher is not None else "",
    ]
    return tuple(fact for fact in facts if fact)
