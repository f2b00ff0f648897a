"""No test query is ever trained on, or chosen by: left out by the letters and digits of its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection, open_collection
from mixlm_rerank.training.recipe import CollectionPart

__all__ = ["divided", "plain", "without_queries"]

Overlaps = dict[str, dict[str, str]]


def divided(
    train: Sequence[CollectionPart], development: Sequence[CollectionPart], never: Sequence[CollectionPart]
) -> tuple[list[Collection], list[Collection], Overlaps]:
    """The collections to train on and to choose by, without the queries that they must not see.

    Returns:
        Both, and what was left out: name of a collection -> qid -> name of the one that has the query too.

    Raises:
        InputError: no query of a collection is left.
    """
    tests = _queries(_opened(never))
    held_out, chosen_by = _without(_opened(development), tests)
    collections, trained_on = _without(_opened(train), {**tests, **_queries(held_out)})
    return collections, held_out, chosen_by | trained_on


def _opened(parts: Sequence[CollectionPart]) -> list[Collection]:
    return [open_collection(part.source, part.split) for part in parts]


def _queries(collections: Sequence[Collection]) -> dict[str, list[str]]:
    return {one.name: list(one.queries.values()) for one in collections}


def _without(
    collections: Sequence[Collection], forbidden: Mapping[str, Iterable[str]]
) -> tuple[list[Collection], Overlaps]:
    pairs = [without_queries(one, forbidden) for one in collections]
    return [one for one, _ in pairs], {one.name: found for one, found in pairs if found}


def without_queries(
    collection: Collection, forbidden: Mapping[str, Iterable[str]]
) -> tuple[Collection, dict[str, str]]:
    """The collection without the queries that are also among ``forbidden``, and which those were.

    Args:
        forbidden: name of a collection -> its queries.

    Returns:
        The collection, and qid -> name of the collection that has the query too.

    Raises:
        InputError: no query is left.
    """
    owner = {plain(query): name for name, queries in forbidden.items() for query in queries}
    found = {qid: owner[plain(query)] for qid, query in collection.queries.items() if plain(query) in owner}
    if len(found) == len(collection.queries):
        raise InputError(f"every query of {collection.name} is also one of {' or '.join(sorted(set(found.values())))}")
    queries = {qid: query for qid, query in collection.queries.items() if qid not in found}
    return replace(collection, queries=queries, qrels={qid: collection.qrels[qid] for qid in queries}), found


def plain(query: str) -> str:
    """What makes two queries the same: letters, marks and digits, without case; all of it where there are none.

    >>> plain("What's  a Dog?") == plain("whats a dog"), plain("?") == plain("!")
    (True, False)
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LMN") or folded
