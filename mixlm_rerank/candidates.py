"""Hits of any first stage -> candidates: Pyserini hits, tuples, docids, ranked documents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .arguments import docid_of, is_nothing
from .errors import InputError
from .types import Candidate

__all__ = ["as_candidates"]


def as_candidates(hits: Iterable[Any]) -> list[Candidate]:
    """Candidates in the order given, which is taken as the first-stage ranking.

    A hit is anything with ``docid`` and ``score`` (and perhaps ``text``), a pair (docid, score), or a bare docid. A
    mapping docid -> score is ordered by its scores.

    >>> as_candidates([("d1", 2.5), "d2"])
    [Candidate(docid='d1', score=2.5, text=None), Candidate(docid='d2', score=-1.0, text=None)]

    Raises InputError for anything else, for a score that is not finite, no docid, or one that occurs twice with one
    text (or without). With different texts these are passages of a document, each a candidate of its own.
    """
    if isinstance(hits, str) or not isinstance(hits, Iterable):
        raise InputError(f"hits must be a list of hits, not {hits!r:.80}")
    rows = hits.items() if isinstance(hits, Mapping) else hits
    candidates = [_candidate(hit, position) for position, hit in enumerate(rows)]
    if isinstance(hits, Mapping):  # docid -> score, as BEIR and mteb have it: in no order
        candidates.sort(key=lambda hit: -hit.score)
    counts = Counter((candidate.docid, candidate.text) for candidate in candidates)
    if len(counts) < len(candidates):
        (twice, _), _ = counts.most_common(1)[0]
        raise InputError(f"document {twice!r} occurs twice among the candidates")
    return candidates


def _candidate(hit: Any, position: int) -> Candidate:
    text = None
    if isinstance(hit, str):
        docid, score = hit, float(-position)
    elif isinstance(hit, tuple | list) and len(hit) == 2:
        docid, score = hit
    elif hasattr(hit, "docid") and hasattr(hit, "score"):
        docid, score, text = hit.docid, hit.score, getattr(hit, "text", None)
        if not isinstance(text, str | None):
            if not is_nothing(text):
                raise InputError(f"hit {position} ({docid!r}): its text must be a string, not {text!r:.80}")
            text = None
    else:
        raise InputError(
            f"hit {position} is a {type(hit).__name__}; expected docid and score, (docid, score) or a docid"
        )
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"hit {position} ({docid!r}): the score {score!r} is not a number") from None
    if not math.isfinite(value):
        raise InputError(f"hit {position} ({docid!r}): the score {value} is not finite")
    known = docid_of(docid)
    if known is None:
        raise InputError(f"hit {position} has no docid ({docid!r})")
    return Candidate(known, value, text)
