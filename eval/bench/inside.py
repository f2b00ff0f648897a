"""Where the time of a query goes inside a MixLM."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from torch import nn

from mixlm_rerank.model import MixLM

__all__ = ["shares"]


def shares(
    model: MixLM, runs: Sequence[Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float] | None:
    """Where a query's time goes, as shares of it; medians over some runs.

    Measuring costs time itself, so these runs are none of those whose median is reported.

    Returns:
        ``ranker``: in :meth:`Ranker.forward_packed`. ``query``: in :meth:`ItemEncoder.query_states`, which the residual
        needs. ``rest``: fetching, tokenising, sorting, Python. None if the packed pass was not what ran.
    """
    found: list[tuple[float, float]] = []
    for run in runs:
        with _watched(model.ranker, "forward_packed", clock) as ranker:
            with _watched(model.item_encoder, "query_states", clock) as query:
                started = clock()
                run()
                whole = clock() - started
        if not ranker or whole <= 0:
            return None
        found.append((sum(ranker) / whole, sum(query) / whole))
    inside, encoding = map(median, zip(*found, strict=True))
    return {"ranker": inside, "query": encoding, "rest": max(0.0, 1 - inside - encoding)}


@contextmanager
def _watched(module: nn.Module, method: str, clock: Callable[[], float]) -> Iterator[list[float]]:
    """The seconds of every call of a module's method, as long as this is open."""
    seconds: list[float] = []
    original = getattr(module, method)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = clock()
        try:
            return original(*args, **kwargs)
        finally:
            seconds.append(clock() - started)

    vars(module)[method] = timed  # hides the class's own on this one module
    try:
        yield seconds
    finally:
        del vars(module)[method]
