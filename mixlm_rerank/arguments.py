"""Arguments that look right and are not: one string where many are meant, a fraction for a count."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from .errors import InputError

__all__ = ["strings", "whole_number"]


def strings(values: Iterable[str], name: str) -> list[str]:
    """``values`` as a list. Raises InputError for one string, whose letters would be taken one by one, or no strings.

    >>> strings("12", "docids")
    Traceback (most recent call last):
    mixlm_rerank.errors.InputError: docids must be a list of strings, not the string '12': put it into a list
    """
    if isinstance(values, str | bytes):
        raise InputError(f"{name} must be a list of strings, not the string {values!r}: put it into a list")
    found = list(values)
    for value in found:
        if not isinstance(value, str):
            raise InputError(f"{name} must be strings, not {value!r} (a {type(value).__name__})")
    return found


def whole_number(value: int, name: str) -> int:
    """``value``, perhaps NumPy's. Raises InputError for anything but a whole number.

    >>> whole_number(2.5, "tokens")
    Traceback (most recent call last):
    mixlm_rerank.errors.InputError: tokens must be a whole number, not 2.5
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r}") from None
