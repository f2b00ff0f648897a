"""A known answer, saved with a model and checked when it is loaded: do these weights still compute the same here?

It detects damaged or mixed-up files, and a library that now computes something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError

__all__ = ["QUERY", "TEXTS", "check_known_answer", "write_known_answer"]

QUERY = "why is the sky blue?"
TEXTS = ("Blue light is scattered more by air than red light.", "Bread is made of flour, water, yeast and salt.")
TOLERANCE = 1e-2  # log-odds, or this share of the larger answer; float32 rounding stays below 1e-4


def write_known_answer(answers: list[float], path: Path) -> None:
    """Write the answers of a model that was read back from disk."""
    path.write_text(json.dumps({"query": QUERY, "texts": TEXTS, "log_odds": answers}, indent=1) + "\n")


def check_known_answer(answers: Callable[[], list[float]], path: Path) -> None:
    """Raises InputError if the model (float32, on the CPU) answers differently, or the file is missing."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["log_odds"]
        expected = [float(value) for value in known]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    found = answers()
    scale = max(1.0, *(abs(value) for value in expected))
    off = [abs(value - right) for value, right in zip(found, expected, strict=False)]
    if len(found) != len(expected) or not max(off) <= TOLERANCE * scale:
        raise InputError(
            f"{path.parent} does not give its known answer: {found} instead of {expected}. Its files are damaged or "
            "not of one model, or an installed library (torch, transformers, onnxruntime) computes something else: get "
            "the model again"
        )
