"""Progress bars on stderr: live on a terminal, a line every ten seconds in a log file."""

from __future__ import annotations

import sys
from typing import NoReturn, Protocol

from tqdm import tqdm

__all__ = ["Progress", "progress_bar"]


class Progress(Protocol):
    """What encoding reports its progress to: a tqdm bar, for example."""

    def update(self, n: float, /) -> object: ...


def progress_bar(total: int | None, task: str, unit: str, *, enabled: bool, initial: int = 0) -> tqdm[NoReturn]:
    """A bar with ``update(n)`` and ``close()``, also a context manager; silent unless ``enabled``."""
    return tqdm(
        total=total,
        desc=task,
        unit=f" {unit}",
        initial=initial,
        disable=not enabled,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        maxinterval=10 if sys.stderr.isatty() else 60,
    )
