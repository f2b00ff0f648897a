"""No test query is ever trained on, or chosen by: left out by the letters and digits of its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import Collection, open_collection
from mixlm_rerank.training.recipe import CollectionPart

__all__ = ["Divided", "Forbidden", "Overlaps", "divided", "left_out", "plain", "without_queries"]

Forbidden = Mapping[str, str]  # a query, made plain -> name of a collection that has it
Overlaps = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Divided:
    """Attributes:
    train, development: collections, without the queries that they must not see.
    forbidden: what is not to be trained on.
    overlaps: what was left out: name of a collection -> qid -> name of the one that has the query too.
    """

    train: list[Collection]
    development: list[Collection]
    forbidden: Forbidden
    overlaps: Overlaps


def divided(
    train: Sequence[CollectionPart], development: Sequence[CollectionPart], never: Sequence[CollectionPart]
) -> Divided:
    """What to train on and what to choose by. Raises InputError if no query of a collection is left."""
    tests = _forbidden(_opened(never))
    held_out, chosen_by = _without(_opened(development), tests)
    forbidden = {**_forbidden(held_out), **tests}
    collections, trained_on = _without(_opened(train), forbidden)
    return Divided(collections, held_out, forbidden, _together([*chosen_by, *trained_on]))


def _opened(parts: Sequence[CollectionPart]) -> list[Collection]:
    return [open_collection(part.source, part.split) for part in parts]


def _forbidden(collections: Sequence[Collection]) -> Forbidden:
    return {plain(query): one.name for one in collections for query in one.queries.values()}


def _without(
    collections: Sequence[Collection], forbidden: Forbidden
) -> tuple[list[Collection], list[tuple[str, dict[str, str]]]]:
    pairs = [without_queries(one, forbidden) for one in collections]
    return [one for one, _ in pairs], [(one.name, found) for one, found in pairs if found]


def _together(parts: Sequence[tuple[str, dict[str, str]]]) -> Overlaps:
    """Two collections may have one name."""
    overlaps: Overlaps = {}
    for name, found in parts:
        overlaps.setdefault(name, {}).update(found)
    return overlaps


def without_queries(collection: Collection, forbidden: Forbidden) -> tuple[Collection, dict[str, str]]:
    """The collection without forbidden queries, and which those were, as :func:`left_out` has them.

    Raises InputError if no query is left.
    """
    found = left_out(collection.name, collection.queries, forbidden)
    queries = {qid: query for qid, query in collection.queries.items() if qid not in found}
    return replace(collection, queries=queries, qrels={qid: collection.qrels[qid] for qid in queries}), found


def left_out(name: str, queries: Mapping[str, str], forbidden: Forbidden) -> dict[str, str]:
    """Those of ``queries`` (qid -> text) that are forbidden: qid -> name of a collection that has it, too.

    Raises InputError if that is every one of ``name``.
    """
    found = {qid: forbidden[plain(query)] for qid, query in queries.items() if plain(query) in forbidden}
    if found and len(found) == len(queries):
        raise InputError(f"every query of {name} is also one of {' or '.join(sorted(set(found.values())))}")
    return found


def plain(query: str) -> str:
    """What makes two queries the same: letters, marks and digits, without case; all of it where there are none.

    >>> plain("What's  a Dog?") == plain("whats a dog"), plain("?") == plain("!")
    (True, False)
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LMN") or folded
