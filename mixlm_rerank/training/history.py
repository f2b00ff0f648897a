"""What happened in training, as a picture: losses on the left, development values on the right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import optional_import

__all__ = ["plot_history"]

DEV = "dev "
NOT_LOSSES = {"step", "epoch", "learning_rate", "grad_norm", "train_runtime", "total_flos"}


def plot_history(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """``history``: rows with ``step`` and values; names that begin with "dev " are development values.

    What is the same is one line with both names: a loss that is alone and the sum, say.

    Raises MissingDependency without matplotlib.
    """
    with optional_import("the plot needs matplotlib", "train"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, development = figure.subplots(1, 2)
    for axes, title, unit, lines in (
        (losses, "training batches", "loss", _lines(history, development=False)),
        (development, "development queries", "nDCG@10", _lines(history, development=True)),
    ):
        for name, (steps, values) in lines.items():
            axes.plot(steps, values, marker="." if len(steps) < 40 else "", label=name)
        axes.set(title=title, xlabel="step", ylabel=unit)
        axes.spines[["top", "right"]].set_visible(False)
        if lines:
            axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=120)


def _lines(
    history: Sequence[Mapping[str, Any]], *, development: bool
) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
    """name -> steps and values."""
    lines: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {}
    for name in dict.fromkeys(name for row in history for name in row if name not in NOT_LOSSES):
        if name.startswith(DEV) != development or name.startswith("train_"):
            continue
        steps, values = zip(*((row["step"], float(row[name])) for row in history if name in row), strict=True)
        twin = next((label for label, (_, drawn) in lines.items() if _same(values, drawn)), None)
        lines.pop(twin or "", None)
        lines[(f"{twin} = " if twin else "") + name.removeprefix(DEV)] = (steps, values)
    return lines


def _same(values: Sequence[float], drawn: Sequence[float]) -> bool:
    """Up to the Trainer's rounding."""
    pairs = zip(values, drawn, strict=False)
    return len(values) == len(drawn) and all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in pairs)
