"""Timing side by side: entrants take turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from mixlm_rerank.model import MixLM

__all__ = ["Entrant", "Spread", "fastest", "interleaved", "over", "planned_rounds", "shares", "spread"]

REST_SECONDS = 0.02  # before every turn: worker threads of a library spin for a moment after their work
Clock = Callable[[], float]  # seconds that have passed
Spread = dict[str, float]  # median, low and high quartile of the same thing measured several times


@dataclass(frozen=True)
class Entrant:
    """The work of each round, the first again after the last one; and a warm-up, by default the last of the runs."""

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
    clock: Clock = time.perf_counter,
    rest: Callable[[], object] = lambda: time.sleep(REST_SECONDS),
    told: Callable[[str], object] = lambda name: None,
    expected: Callable[[float], object] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Seconds of every round of every entrant, by name.

    One warm-up each; then rounds in which all take turns, there and back, so that nobody always follows the same one.

    Args:
        seconds: an entrant whose rounds would take longer takes part in fewer, spread over all; in the first anyway.
        rest: done before every turn, not timed. told: is given the entrant's name before every turn.
        expected: is given, after the first round, about the seconds of all rounds.
    """
    for entrant in entrants:
        told(entrant.name)
        (entrant.warm_up or entrant.runs[-1])()
    taken: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    planned = dict.fromkeys(taken, rounds)
    for number in range(rounds):
        for entrant in entrants if number % 2 == 0 else reversed(entrants):
            own = planned[entrant.name]
            if number == 0 or number * own // rounds > (number - 1) * own // rounds:
                told(entrant.name)
                rest()
                started = clock()
                entrant.runs[number % len(entrant.runs)]()
                taken[entrant.name].append(clock() - started)
        if number == 0:
            planned = {name: planned_rounds(first, rounds, seconds) for name, (first,) in taken.items()}
            expected(sum(planned[name] * first for name, (first,) in taken.items()))
    return taken


def fastest(options: Sequence[Entrant], *, clock: Clock = time.perf_counter) -> str:
    """The name of the option with the best of two rounds: a short measurement."""
    taken = interleaved(options, rounds=2, clock=clock)
    return min(taken, key=lambda name: min(taken[name]))


def shares(
    model: MixLM, runs: Sequence[Callable[[], object]], clock: Clock = time.perf_counter
) -> dict[str, float] | None:
    """Where a query's time goes, as shares of it; medians over some runs, which are none of those that are reported.

    Returns:
        ``ranker``: in :meth:`Ranker.forward_packed`. ``query``: in :meth:`ItemEncoder.query_states`, which the residual
        needs. ``rest``: fetching, tokenising, sorting, Python. None if the packed pass was not what ran.
    """
    ranker, encoder, found = model.ranker, model.item_encoder, []

    def watched(part: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            result = original(*args, **kwargs)
            inside[part] += clock() - started
            return result

        return timed

    for run in runs:
        inside = {"ranker": 0.0, "query": 0.0}
        vars(ranker)["forward_packed"] = watched("ranker", ranker.forward_packed)  # hides the class's own on this one
        vars(encoder)["query_states"] = watched("query", encoder.query_states)
        try:
            started = clock()
            run()
            whole = clock() - started
        finally:
            del vars(ranker)["forward_packed"], vars(encoder)["query_states"]
        if not inside["ranker"]:
            return None
        found.append({part: seconds / whole for part, seconds in inside.items()})
    medians = {part: median(each[part] for each in found) for part in inside}
    return {**medians, "rest": max(0.0, 1 - sum(medians.values()))}
