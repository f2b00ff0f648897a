"""No test query is ever trained on, or chosen by: left out by the letters and digits of its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection

__all__ = ["plain", "without_queries"]


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
