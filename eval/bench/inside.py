"""Where MixLM's time goes: the ranker's forward passes, the item encoder on the query, and all the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from torch import nn

from mixlm_rerank.model import MixLM

__all__ = ["Shares", "shares"]


@dataclass(frozen=True)
class Shares:
    """Shares of a query's time, 0 to 1; together 1.

    Attributes:
        ranker: in :meth:`Ranker.forward_packed`.
        query: in :meth:`ItemEncoder.query_states`, which the residual needs.
        rest: fetching, tokenising, sorting, Python.
    """

    ranker: float
    query: float
    rest: float


def shares(
    model: MixLM, runs: Sequence[Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> Shares | None:
    """Medians over some runs of a query; None if the ranker's packed pass was not what they spent time in.

    Measuring costs time itself, so these runs are none of those whose median is reported.
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
    inside, encoding = (median(values) for values in zip(*found, strict=True))
    return Shares(inside, encoding, max(0.0, 1 - inside - encoding))


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
