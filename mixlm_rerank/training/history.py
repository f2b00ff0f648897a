"""What happened in training, as a picture: losses on the left, development values on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import MissingDependency

__all__ = ["plot_history"]

DEV = "dev "
NOT_LOSSES = {"step", "epoch", "learning_rate", "grad_norm", "train_runtime", "total_flos"}


def plot_history(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """``history``: rows with ``step`` and values; names that begin with "dev " are development values.

    Raises MissingDependency without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("the plot needs matplotlib", "train") from None
    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, development = figure.subplots(1, 2)
    for axes, title, names in (
        (losses, "losses", _names(history, development=False)),
        (development, "development queries", _names(history, development=True)),
    ):
        for name in names:
            points = [(row["step"], row[name]) for row in history if name in row]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "", label=name.removeprefix(DEV))
        axes.set(title=title, xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
        if names:
            axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=120)


def _names(history: Sequence[Mapping[str, Any]], *, development: bool) -> list[str]:
    names = dict.fromkeys(name for row in history for name in row if name not in NOT_LOSSES)
    return [name for name in names if name.startswith(DEV) == development and not name.startswith("train_")]
