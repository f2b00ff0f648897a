"""Checks of the arguments that callers often get wrong: strings, counts, absent values, hits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

from .errors import InputError
from .types import Candidate

__all__ = ["as_candidates", "check_count", "check_kind", "check_list_of_strings", "check_model", "check_strings"]
__all__ += ["docid_of", "is_nothing"]

NOTHING = ("None", "nan", "<NA>", "NaT")


def check_strings(name: str, values: object) -> None:
    """Raises InputError for one string in place of several: its characters would be read as the strings."""
    if isinstance(values, str | bytes):
        raise InputError(f"{name} must be a list of strings, not one string: [{values!r}]")


def check_list_of_strings(name: str, values: object) -> None:
    """Raises InputError for anything but a list of strings."""
    check_strings(name, values)
    if not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of strings, not {values!r:.80}")
    other = [] if isinstance(values, Iterator) else [value for value in values if not isinstance(value, str)]
    if other:
        raise InputError(f"{name} must be strings, not {other[0]!r:.80}")


def check_model(model: object) -> None:
    """Raises InputError for anything but a model: its name, for example."""
    if not hasattr(model, "item_encoder"):
        raise InputError(f"model must be a MixLM (MixLM.from_pretrained(...)), not {model!r:.80}")


def check_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raises InputError unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {expected}, not {value!r:.80}")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raises InputError unless ``value`` is None or a whole number of at least ``least``."""
    if value is None:
        return
    if not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise InputError(f"{name} must be at least {least}, not {value}")


def is_nothing(value: object) -> bool:
    """Whether a value is absent: None, the empty string, NaN or NA, as in data frames and metadata.

    >>> [is_nothing(value) for value in (None, "", float("nan"), 0, "nan")]
    [True, True, True, False, False]
    """
    return not value if isinstance(value, str) else str(value) in NOTHING


def docid_of(value: object) -> str | None:
    """A docid as a string (numbers are converted), or None if it is absent."""
    return None if is_nothing(value) else str(value)


def as_candidates(hits: Iterable[Any]) -> list[Candidate]:
    """Candidates in the order given, which is taken as the first-stage ranking.

    A hit is anything with ``docid`` and ``score`` (and perhaps ``text``), a pair (docid, score), or a bare docid. A
    mapping docid -> score is ordered by its scores.

    >>> as_candidates([("d1", 2.5), "d2"])
    [Candidate(docid='d1', score=2.5, text=None), Candidate(docid='d2', score=-1.0, text=None)]

    Raises InputError for anything else, for a score that is not finite, for an absent docid, or for a docid that occurs
    twice with the same text (or without). With different texts these are passages of a document, each a candidate.
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
