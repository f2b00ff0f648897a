"""Is a difference between two systems more than chance? Paired tests over queries, corrected for how many are made; and
how far a mean could lie elsewhere with other queries.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError, optional_import

__all__ = ["FEWEST", "Comparison", "Interval", "compare", "holm", "interval", "scipy_stats"]

PERMUTATIONS = 100_000
RESAMPLES = 2000
FEWEST = 5  # queries: draws of fewer are too much alike to say anything

Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """One system against the baseline, on one measure.

    Attributes:
        system: its name.
        difference: mean over queries, system minus baseline.
        wins, losses: queries on which the system is better, worse (the rest are equal).
        p_t: two-sided p of the paired t-test, Holm-corrected over the systems compared.
        p_randomisation: of the paired randomisation test (signs of the differences drawn at random), corrected alike.
    """

    system: str
    difference: float
    wins: int
    losses: int
    p_t: float
    p_randomisation: float


def compare(
    values: Mapping[str, Mapping[str, float]], baseline: str, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Comparison]:
    """Every other system against ``baseline``.

    Args:
        values: system -> qid -> value of one measure; the same queries for all.
        baseline: one of the systems.
        permutations: draws of the randomisation test (all sign patterns, where there are fewer of them).
        seed: of those draws.

    Raises:
        InputError: an unknown baseline, or systems measured on different queries.
        MissingDependency: scipy is not installed.
    """
    if baseline not in values:
        raise InputError(f"the baseline {baseline!r} is none of the systems {', '.join(values)}")
    qids = sorted(values[baseline])
    others = [system for system in values if system != baseline]
    for system in others:
        if values[system].keys() != values[baseline].keys():
            raise InputError(f"{system!r} and {baseline!r} were not measured on the same queries")
    differences = [np.array([values[system][qid] - values[baseline][qid] for qid in qids]) for system in others]
    p_t = holm([_t_test(difference) for difference in differences])
    p_randomisation = holm([_randomisation_test(difference, permutations, seed) for difference in differences])
    return [
        Comparison(
            system,
            float(difference.mean()) if len(difference) else 0.0,
            int((difference > 0).sum()),
            int((difference < 0).sum()),
            p_t[row],
            p_randomisation[row],
        )
        for row, (system, difference) in enumerate(zip(others, differences, strict=True))
    ]


@lru_cache(maxsize=1 << 14)  # page and tables show the same means
def interval(*samples: tuple[float, ...]) -> Interval | None:
    """95% bootstrap interval (percentiles) of the mean over the samples' means: each sample is a collection, its values
    those of its queries. None where a collection has fewer than ``FEWEST`` queries.

    Raises MissingDependency if scipy is not installed.
    """
    if not samples or min(map(len, samples)) < FEWEST:
        return None
    found = scipy_stats().bootstrap(
        samples,
        lambda *drawn, axis: np.mean([np.mean(one, axis=axis) for one in drawn], axis=0),
        method="percentile",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=200,  # bounds the memory
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests at once (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for step, row in enumerate(order):
        highest = max(highest, min(1.0, float(p_values[row]) * (len(p_values) - step)))
        adjusted[row] = highest
    return adjusted


def _t_test(differences: NDArray[np.float64]) -> float:
    if len(differences) < 2 or not differences.any():
        return 1.0
    if np.all(differences == differences[0]):  # no variance: the statistic is infinite
        return 0.0
    return float(scipy_stats().ttest_1samp(differences, 0.0).pvalue)


def _randomisation_test(differences: NDArray[np.float64], permutations: int, seed: int) -> float:
    if len(differences) < 2 or not differences.any():
        return 1.0
    result = scipy_stats().permutation_test(
        (differences,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def scipy_stats() -> Any:
    """scipy.stats, or MissingDependency with the command that installs it."""
    with optional_import("significance tests need scipy", "eval"):
        return importlib.import_module("scipy.stats")
