"""Significance of differences: paired tests over queries, and bootstrap intervals of means."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError, optional_import

__all__ = ["FEWEST", "Comparison", "Interval", "Verdict", "bootstrap", "compare", "compare_pairs", "holm", "interval"]
__all__ += ["scipy_stats"]

ALPHA = 0.05
PERMUTATIONS = 100_000
RESAMPLES = 2000
FEWEST = 5  # queries: resamples of fewer are too similar to be informative

Interval = tuple[float, float]
Values = Mapping[str, float]  # qid -> value of one measure


class Verdict(IntEnum):
    """Outcome of two paired tests of a difference: significant in both, in one, or in neither."""

    WORSE = -2
    WORSE_IN_ONE = -1
    NO_DIFFERENCE = 0
    BETTER_IN_ONE = 1
    BETTER = 2

    @property
    def sign(self) -> str:
        return "▼▽ △▲"[self + 2].strip()

    @property
    def words(self) -> str:
        if not self:
            return "no significant difference"
        better = "better" if self > 0 else "worse"
        return f"significantly {better}" if abs(self) == 2 else f"{better} by one of the two tests only"


@dataclass(frozen=True)
class Comparison:
    """One system against the baseline, on one measure.

    Attributes:
        system: its name.
        difference: mean over queries, system minus baseline.
        wins, losses: queries on which the system is better, worse (the rest are equal).
        p_t: two-sided p of the paired t-test, Holm-corrected over the systems compared.
        p_randomisation: two-sided p of the paired randomisation test (random signs of differences), Holm-corrected.
    """

    system: str
    difference: float
    wins: int
    losses: int
    p_t: float
    p_randomisation: float

    @property
    def verdict(self) -> Verdict:
        """Significant means a Holm-corrected p below .05.

        >>> Comparison("MixLM", difference=-0.02, wins=3, losses=9, p_t=0.04, p_randomisation=0.06).verdict
        <Verdict.WORSE_IN_ONE: -1>
        """
        tests = (self.p_t < ALPHA) + (self.p_randomisation < ALPHA)
        return Verdict(tests if self.difference > 0 else -tests)


def compare(
    values: Mapping[str, Values], baseline: str, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Comparison]:
    """Compare every other system with ``baseline``.

    Args:
        values: system -> qid -> value of one measure; the same queries for all.
        permutations: draws of the randomisation test (all sign patterns if there are fewer).

    Raises:
        InputError: an unknown baseline, or systems measured on different queries.
        MissingDependency: scipy is not installed.
    """
    if baseline not in values:
        raise InputError(f"the baseline {baseline!r} is none of the systems {', '.join(values)}")
    for system, own in values.items():
        if own.keys() != values[baseline].keys():
            raise InputError(f"{system!r} and {baseline!r} were not measured on the same queries")
    pairs = {system: (values[baseline], own) for system, own in values.items() if system != baseline}
    return compare_pairs(pairs, permutations=permutations, seed=seed)


def compare_pairs(
    pairs: Mapping[str, tuple[Values, Values]], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Comparison]:
    """Compare ``after`` with ``before`` for each name -> (before, after); p-values are corrected over all pairs.

    Pairs may have different queries. A pair without values, or whose two sides differ in queries, is left out.
    """
    found = []
    for name, (before, after) in pairs.items():
        if before and before.keys() == after.keys():
            gains = np.array([after[qid] - before[qid] for qid in sorted(before)])
            wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
            p_values = _p_values(gains, permutations, seed)
            found.append(Comparison(name, float(gains.mean()), wins, losses, *p_values))
    corrected = holm([one.p_t for one in found]), holm([one.p_randomisation for one in found])
    return [replace(one, p_t=p, p_randomisation=q) for one, p, q in zip(found, *corrected, strict=True)]


@lru_cache(maxsize=1 << 14)  # page and tables show the same means
def interval(*samples: tuple[float, ...], confidence: float = 0.95) -> Interval | None:
    """Bootstrap percentile interval of the mean of the samples' means. A sample holds one collection's values by query.
    None if a collection has fewer than ``FEWEST`` queries.

    Raises MissingDependency if scipy is not installed.
    """
    if not samples or min(map(len, samples)) < FEWEST:
        return None
    count = round(RESAMPLES * ALPHA / (1 - confidence))  # the number of draws beyond the ends stays constant
    return bootstrap(
        samples,
        lambda *drawn, axis: np.mean([np.mean(one, axis=axis) for one in drawn], axis=0),
        count,
        confidence_level=confidence,
    )


def bootstrap(
    samples: Sequence[Any], statistic: Callable[..., Any], count: int = RESAMPLES, **options: Any
) -> Interval:
    """95% bootstrap percentile interval of a statistic that takes ``axis``. ``count``: draws; ``options``: scipy's."""
    options = {"rng": np.random.default_rng(0), "batch": 200, **options}  # the batch bounds the memory
    found = scipy_stats().bootstrap(
        samples, statistic, method="percentile", vectorized=True, n_resamples=count, **options
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests at once (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.minimum(steps, 1.0))
    return [float(p) for p in adjusted]


def _p_values(gains: NDArray[np.float64], permutations: int, seed: int) -> tuple[float, float]:
    """p-values of the paired t-test and the paired randomisation test, both two-sided."""
    if len(gains) < 2 or not gains.any():
        return 1.0, 1.0
    randomised = scipy_stats().permutation_test(
        (gains,),
        lambda sample, axis: np.mean(sample, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    # without variance the statistic of the t-test is infinite
    p_t = 0.0 if np.all(gains == gains[0]) else scipy_stats().ttest_1samp(gains, 0.0).pvalue
    return float(p_t), float(randomised.pvalue)


def scipy_stats() -> Any:
    """scipy.stats, or MissingDependency with the command that installs it."""
    with optional_import("significance tests need scipy", "eval"):
        return importlib.import_module("scipy.stats")
