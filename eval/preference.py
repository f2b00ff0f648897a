"""Which of two systems would users prefer, how sure is the answer, and how many sessions does a test need?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.arguments import check_count
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.clicks import ClickModel
from mixlm_rerank.eval.interleaving import ABSENT, Ints, balanced, balanced_credit, team_draft, team_draft_credit
from mixlm_rerank.eval.significance import bootstrap
from mixlm_rerank.systems.collections import some_ids
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Method", "Preference", "common_queries", "interleave", "sessions_needed", "share_known"]

Method = Literal["team-draft", "balanced"]
Ranked = Sequence[Candidate | ScoredDoc]
Run = Mapping[str, Ranked]

RESAMPLES = 10_000
LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Preference:
    """What users of one kind make of two systems.

    Attributes:
        a, b, ties: sessions in which the clicks went to A's documents more, to B's, or to both alike.
        preference: share of sessions that B wins, a tie being half a win of each: .5 is no preference.
        low, high: its 95% interval, by bootstrap over queries. One query says nothing about others: 0 and 1.
        sessions_needed: that a test of A against B takes (see :func:`sessions_needed`); None where the interval holds
            .5, so that no difference was found.
    """

    a: int
    b: int
    ties: int
    preference: float
    low: float
    high: float
    sessions_needed: int | None


def interleave(
    a: Run, b: Run, model: ClickModel, *, method: Method = "team-draft", sessions: int = 100_000, seed: int = 0
) -> Preference:
    """Simulate sessions in which users see the interleaved lists of two systems.

    Args:
        a, b: qid -> documents, best first.
        model: of the users; queries are drawn as often as it says that they are asked.
        method: of interleaving and credit.
        sessions: to simulate.
        seed: of everything that is drawn.

    Raises:
        InputError: no query is in both runs and known to the click model, or nothing is known about any document.
        MissingDependency: scipy is not installed.
    """
    check_count("sessions", sessions)
    qids = common_queries(a, b, model)
    if not share_known(a, b, model):
        raise InputError(
            f"none of the first {model.depth} documents of either run is known to the click model "
            f"({some_ids(hit.docid for hit in a[qids[0]])}, for one): are docids written alike?"
        )
    rng = np.random.default_rng(seed)
    asked = np.array([model.asked[qid] for qid in qids], dtype=np.float64)
    counts = rng.multinomial(sessions, asked / asked.sum())
    outcomes = [
        _outcomes(a[qid], b[qid], qid, model, method, int(count), rng)
        for qid, count in zip(qids, counts, strict=True)
        if count
    ]
    b_wins, a_wins = (sum(int((own == sign).sum()) for own in outcomes) for sign in (1, -1))
    points = np.array([own.sum() for own in outcomes]) / 2
    low, high = _interval(points, counts[counts > 0], rng)
    return Preference(
        a_wins,
        b_wins,
        sessions - a_wins - b_wins,
        0.5 + float(points.sum()) / sessions,
        low,
        high,
        None if low <= 0.5 <= high else sessions_needed(a_wins / sessions, b_wins / sessions),
    )


def common_queries(a: Run, b: Run, model: ClickModel) -> list[str]:
    """Queries that the click model knows and for which both runs have documents. Raises InputError if there is none."""
    qids = [qid for qid in a if a[qid] and b.get(qid) and model.asked.get(qid, 0) > 0]
    if not qids:
        raise InputError(
            f"no query is in both runs and judged or logged (A: {some_ids(a)}; B: {some_ids(b)}; judged or logged: "
            f"{some_ids(model.asked)}): do they belong together?"
        )
    return qids


def share_known(a: Run, b: Run, model: ClickModel) -> float:
    """Of the documents that can be shown (the first ``depth`` of both runs), the share that the click model knows."""
    seen = [
        hit.docid in model.behaviour.get(qid, {})
        for qid in common_queries(a, b, model)
        for run in (a, b)
        for hit in run[qid][: model.depth]
    ]
    return float(np.mean(seen)) if seen else 0.0


def sessions_needed(a: float, b: float) -> int | None:
    """Sessions in which a two-sided test at .05 finds, with power .8, who wins more.

    The test is the sign test on sessions that are no ties, in the normal approximation (Connor, Sample size for testing
    differences in proportions for the paired-sample design, Biometrics 43, 1987). None where both win alike.

    Args:
        a, b: the shares of sessions that each wins.

    >>> sessions_needed(0.2, 0.3)
    391
    """
    if a == b:
        return None
    level, power = NormalDist().inv_cdf(1 - LEVEL / 2), NormalDist().inv_cdf(POWER)
    decided, difference = a + b, b - a
    needed: int = math.ceil(((level * decided**0.5 + power * (decided - difference**2) ** 0.5) / difference) ** 2)
    return needed


def _outcomes(
    a: Ranked,
    b: Ranked,
    qid: str,
    model: ClickModel,
    method: Method,
    sessions: int,
    rng: np.random.Generator,
) -> Ints:
    """[sessions]: 1 where B wins, -1 where A wins, 0 for ties."""
    places = [{hit.docid: rank for rank, hit in enumerate(run[: model.depth])} for run in (a, b)]
    docids = list(places[0] | places[1])
    ranks = np.array([[own.get(docid, ABSENT) for docid in docids] for own in places], dtype=np.int64)
    if method == "team-draft":
        lists, teams = team_draft(ranks, sessions, model.depth, rng)
        credit = team_draft_credit(teams, model.clicks(qid, docids, lists, rng))
    elif method == "balanced":
        lists = balanced(ranks, sessions, model.depth, rng)
        credit = balanced_credit(ranks, lists, model.clicks(qid, docids, lists, rng))
    else:
        raise InputError(f"unknown interleaving {method!r}: there is team-draft and balanced")
    outcomes: Ints = np.sign(credit[:, 1] - credit[:, 0])
    return outcomes


def _interval(points: NDArray[np.float64], counts: Ints, rng: np.random.Generator) -> tuple[float, float]:
    """95% of the preference, queries being drawn anew; ``points`` above half a win for each session, by query."""
    if len(points) < 2:
        return 0.0, 1.0
    return bootstrap(
        (points, counts),
        lambda points, counts, axis: 0.5 + points.sum(axis=axis) / counts.sum(axis=axis),
        RESAMPLES,
        paired=True,
        rng=rng,
    )
