"""No test query is ever trained on: refused by the letters and digits of its text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

from mixlm_rerank.errors import InputError

__all__ = ["plain", "refuse_queries"]


def refuse_queries(training: Iterable[tuple[str, str]], forbidden: Mapping[str, Iterable[str]]) -> None:
    """Raises InputError if a training query is also one of ``forbidden``.

    Args:
        training: (name of the collection, query).
        forbidden: name of a collection -> its queries.
    """
    known = {plain(query): name for name, queries in forbidden.items() for query in queries}
    found = [(name, query, known[plain(query)]) for name, query in training if plain(query) in known]
    if found:
        name, query, test = found[0]
        raise InputError(f"{len(found)} queries, {query!r} of {name} for one, are queries of {test} too: take them out")


def plain(query: str) -> str:
    """What makes two queries the same: letters, marks and digits, without case; all of it where there are none.

    >>> plain("What's  a Dog?") == plain("whats a dog"), plain("?") == plain("!")
    (True, False)
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LMN") or folded
