"""What callers hand over and often get wrong, checked in one place: lists of strings, counts, values that are none."""

from __future__ import annotations

from numbers import Integral

from .errors import InputError

__all__ = ["check_count", "check_strings", "docid_of", "is_nothing"]

NOTHING = ("None", "nan", "<NA>", "NaT")


def check_strings(name: str, values: object) -> None:
    """Raises InputError for one string in the place of several: its letters would be taken for them."""
    if isinstance(values, str | bytes):
        raise InputError(f"{name} must be a list of strings, not one string: [{values!r}]")


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
