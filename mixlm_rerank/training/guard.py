"""No test query is ever trained on: refused by the letters and digits of its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mixlm_rerank.errors import InputError

__all__ = ["refuse_queries"]


def refuse_queries(training: Iterable[tuple[str, str]], forbidden: Mapping[str, Iterable[str]]) -> None:
    """Raises InputError if a training query is also one of ``forbidden``.

    Args:
        training: (name of the collection, query).
        forbidden: name of a collection -> its queries.
    """
    known = {_plain(query): name for name, queries in forbidden.items() for query in queries}
    found = [(name, query, known[_plain(query)]) for name, query in training if _plain(query) in known]
    if found:
        name, query, test = found[0]
        raise InputError(
            f"{len(found)} training queries are queries of a test too, {query!r} of {name} (in {test}) for one: take "
            "them out of the training set"
        )


def _plain(query: str) -> str:
    """
    >>> _plain("What's  a Dog?") == _plain("whats a dog")
    True
    """
    return re.sub(r"[\W_]+", "", query.lower())
