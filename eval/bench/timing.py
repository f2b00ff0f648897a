"""Timing side by side: entrants take turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mixlm_rerank.progress import progress_bar

__all__ = ["Entrant", "Spread", "fastest", "interleaved", "planned_rounds", "spread", "steady", "turns_bar"]

# Worker threads of a library spin for a moment after their work; they shall not spin into another's time.
REST_SECONDS = 0.02


@dataclass(frozen=True)
class Entrant:
    """What is timed.

    Attributes:
        run: the work of a round; it is given the round's number, from 0.
        warm_up: done once before all rounds, not timed.
    """

    name: str
    run: Callable[[int], object]
    warm_up: Callable[[], object]


def steady(name: str, work: Callable[[], object], warm_up: Callable[[], object] | None = None) -> Entrant:
    """An entrant that does the same in every round, and before them if nothing else is given."""
    return Entrant(name, lambda number: work(), warm_up or work)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the same thing measured several times."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Quartiles are interpolated linearly.

    >>> spread([1.0, 2.0, 3.0, 5.0, 9.0])
    Spread(median=3.0, low=2.0, high=5.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


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
    seconds: float,
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
        entrant.warm_up()
    taken: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    for number in range(rounds):
        for entrant in entrants if number % 2 == 0 else reversed(entrants):
            if not _takes_part(number, taken[entrant.name], rounds, seconds):
                continue
            told(entrant.name)
            rest()
            started = clock()
            entrant.run(number)
            taken[entrant.name].append(clock() - started)
    return taken


def fastest(
    options: Sequence[Entrant], *, rounds: int = 2, clock: Callable[[], float] = time.perf_counter
) -> tuple[str, dict[str, float]]:
    """The name of the option with the least seconds, and the least seconds of all: a short measurement."""
    taken = interleaved(options, rounds=rounds, seconds=float("inf"), clock=clock)
    best = {name: min(values) for name, values in taken.items()}
    return min(best, key=lambda name: best[name]), best


@contextmanager
def turns_bar(entrants: int, rounds: int, *, enabled: bool) -> Iterator[Callable[[str], object]]:
    """A progress bar over all turns, to be ``told`` of each. It ends early where some take part in fewer rounds."""
    with progress_bar(entrants * (rounds + 1), "measure", "turns", enabled=enabled) as bar:

        def told(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update(1)

        yield told


def _takes_part(number: int, taken: Sequence[float], rounds: int, seconds: float) -> bool:
    if number == 0:
        return True
    planned = planned_rounds(taken[0], rounds, seconds)
    return number * planned // rounds > (number - 1) * planned // rounds
