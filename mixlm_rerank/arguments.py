"""What callers hand over and often get wrong, checked in one place: lists of strings, counts, values that are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from numbers import Integral

from .errors import InputError

__all__ = [
    "check_count",
    "check_kind",
    "check_model",
    "check_list_of_strings",
    "check_strings",
    "docid_of",
    "is_nothing",
]

NOTHING = ("None", "nan", "<NA>", "NaT")


def check_strings(name: str, values: object) -> None:
    """Raises InputError for one string in the place of several: its letters would be taken for them."""
    if isinstance(values, str | bytes):
        raise InputError(f"{name} must be a list of strings, not one string: [{values!r}]")


def check_list_of_strings(name: str, values: object) -> None:
    """Raises InputError for what is no list of strings, or has something else among them."""
    check_strings(name, values)
    if not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of strings, not {values!r:.80}")
    other = [] if isinstance(values, Iterator) else [value for value in values if not isinstance(value, str)]
    if other:
        raise InputError(f"{name} must be strings, not {other[0]!r:.80}")


def check_model(model: object) -> None:
    """Raises InputError for its name, say, in its place."""
    if not hasattr(model, "item_encoder"):
        raise InputError(f"model must be a MixLM (MixLM.from_pretrained(...)), not {model!r:.80}")


def check_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raises InputError unless ``value`` is of a kind."""
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
    """None, the empty string, NaN or NA: what data frames and metadata hold where there is no value.

    >>> [is_nothing(value) for value in (None, "", float("nan"), 0, "nan")]
    [True, True, True, False, False]
    """
    return not value if isinstance(value, str) else str(value) in NOTHING


def docid_of(value: object) -> str | None:
    """A docid as a string (numbers become one), or None where there is none."""
    return None if is_nothing(value) else str(value)
