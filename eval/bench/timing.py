"""Timing side by side: entrants take turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Entrant", "Spread", "fastest", "interleaved", "over", "planned_rounds", "spread"]

# Worker threads of a library spin for a moment after their work; they shall not spin into another's time.
REST_SECONDS = 0.02


Spread = dict[str, float]  # median, low and high quartile of the same thing measured several times


@dataclass(frozen=True)
class Entrant:
    """What is timed.

    Attributes:
        runs: the work of each round; the first again after the last one.
        warm_up: done once before all rounds, not timed; by default the last of the runs.
    """

    name: str
    runs: Sequence[Callable[[], object]]
    warm_up: Callable[[], object] | None = None


def spread(values: Sequence[float], scale: float = 1.0) -> Spread:
    """Of ``scale`` times the values; quartiles are interpolated linearly.

    >>> spread([1.0, 2.0, 3.0, 5.0, 9.0])
    {'low': 2.0, 'median': 3.0, 'high': 5.0}
    """
    quartiles = zip(("low", "median", "high"), np.percentile(values, [25, 50, 75]), strict=True)
    return {name: scale * float(value) for name, value in quartiles}


def over(amount: float, spread: Spread) -> Spread:
    """``amount`` divided by it: speeds, of seconds.

    >>> over(8, {"low": 1.0, "median": 2.0, "high": 4.0})
    {'low': 2.0, 'median': 4.0, 'high': 8.0}
    """
    return {"low": amount / spread["high"], "median": amount / spread["median"], "high": amount / spread["low"]}


def planned_rounds(first: float, rounds: int, seconds: float) -> int:
    """How many rounds fit into a budget, going by the first one's seconds: at least 1, at most ``rounds``.

    >>> planned_rounds(4.0, 9, 30.0), planned_rounds(60.0, 9, 30.0), planned_rounds(0.1, 9, 30.0)
    (7, 1, 9)
    """
    return max(1, int(min(rounds, seconds / max(first, 1e-9))))


def interleaved(
    entrants: Sequence[Entrant],
    *,
    rounds: int,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[], object] = lambda: time.sleep(REST_SECONDS),
    told: Callable[[str], object] = lambda name: None,
) -> dict[str, list[float]]:
    """Seconds of every round of every entrant, by name.

    One warm-up each; then rounds in which all take turns, there and back, so that nobody always follows the same one.

    Args:
        seconds: an entrant whose rounds would take longer takes part in fewer, spread over all; in the first anyway.
        clock: seconds that have passed.
        rest: done before every turn, not timed.
        told: is given the entrant's name before every turn.
    """
    for entrant in entrants:
        told(entrant.name)
        (entrant.warm_up or entrant.runs[-1])()
    taken: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    for number in range(rounds):
        for entrant in entrants if number % 2 == 0 else reversed(entrants):
            if _takes_part(number, taken[entrant.name], rounds, seconds):
                told(entrant.name)
                rest()
                started = clock()
                entrant.runs[number % len(entrant.runs)]()
                taken[entrant.name].append(clock() - started)
    return taken


def fastest(options: Sequence[Entrant], *, clock: Callable[[], float] = time.perf_counter) -> str:
    """The name of the option with the best of two rounds: a short measurement."""
    taken = interleaved(options, rounds=2, clock=clock)
    return min(taken, key=lambda name: min(taken[name]))


def _takes_part(number: int, taken: Sequence[float], rounds: int, seconds: float) -> bool:
    if number == 0:
        return True
    planned = planned_rounds(taken[0], rounds, seconds)
    return number * planned // rounds > (number - 1) * planned // rounds
