"""Interleaved lists of two systems: which system users would prefer, and how many sessions a test needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.arguments import check_count
from mixlm_rerank.data.lines import some_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.clicks import ClickModel
from mixlm_rerank.eval.significance import bootstrap
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["ABSENT", "Method", "Preference", "balanced", "balanced_credit", "common_queries", "interleave"]
__all__ += ["sessions_needed", "share_known", "team_draft", "team_draft_credit"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Method = Literal["team-draft", "balanced"]
Ranked = Sequence[Candidate | ScoredDoc]
Run = Mapping[str, Ranked]

ABSENT = 1 << 40  # rank of a document that a run lacks
RESAMPLES = 10_000
LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Preference:
    """Which of two systems the users of a click model prefer."""

    a: int  # sessions in which A gets more clicks
    b: int
    ties: int  # sessions in which both get equally many clicks
    preference: float  # share of sessions that B wins; a tie is half a win for each; .5: no preference
    low: float  # 95% interval of ``preference``, bootstrap over queries; 0 and 1 for a single query
    high: float
    sessions_needed: int | None  # see :func:`sessions_needed`; None if the interval contains .5 (no difference)


def interleave(
    a: Run, b: Run, model: ClickModel, *, method: Method = "team-draft", sessions: int = 100_000, seed: int = 0
) -> Preference:
    """Simulate sessions in which users see the interleaved lists of two systems.

    Queries are drawn in proportion to the click model's ``asked``.

    Raises:
        InputError: no query is in both runs and known to the click model, or it knows none of their documents.
        MissingDependency: scipy is not installed.
    """
    check_count("sessions", sessions)
    qids = common_queries(a, b, model)
    if not share_known(a, b, model):
        raise InputError(
            f"none of the first {model.depth} documents of either run is known to the click model "
            f"({some_ids(hit.docid for hit in a[qids[0]])}, for one): are docids written alike?"
        )
    if method not in ("team-draft", "balanced"):
        raise InputError(f"unknown interleaving {method!r}: there is team-draft and balanced")
    rng = np.random.default_rng(seed)
    asked = np.array([model.asked[qid] for qid in qids], dtype=np.float64)
    counts = rng.multinomial(sessions, asked / asked.sum())
    drawn = [(qid, int(count)) for qid, count in zip(qids, counts, strict=True) if count]
    outcomes = [_outcomes((a[qid], b[qid]), qid, model, method, count, rng) for qid, count in drawn]
    b_wins, a_wins = (sum(int((own == sign).sum()) for own in outcomes) for sign in (1, -1))
    points = np.array([own.sum() for own in outcomes]) / 2  # wins of B minus half the sessions

    def preferred(points: Any, counts: Any, axis: int) -> Any:
        return 0.5 + points.sum(axis=axis) / counts.sum(axis=axis)

    pairs = points, counts[counts > 0]
    low, high = bootstrap(pairs, preferred, RESAMPLES, paired=True, rng=rng) if len(points) > 1 else (0.0, 1.0)
    needed = None if low <= 0.5 <= high else sessions_needed(a_wins / sessions, b_wins / sessions)
    preference = 0.5 + float(points.sum()) / sessions
    return Preference(a_wins, b_wins, sessions - a_wins - b_wins, preference, low, high, needed)


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
    """Share known to the click model among the documents that can be shown (the first ``depth`` of both runs)."""
    seen = [
        hit.docid in model.behaviour.get(qid, {})
        for qid in common_queries(a, b, model)
        for run in (a, b)
        for hit in run[qid][: model.depth]
    ]
    return float(np.mean(seen)) if seen else 0.0


def sessions_needed(a: float, b: float) -> int | None:
    """Sessions that a two-sided test at .05 needs to find, with power .8, which system wins more.

    ``a`` and ``b`` are the shares of sessions that each system wins. The test is the sign test without ties, in the
    normal approximation (Connor, Sample size for testing differences in proportions for the paired-sample design,
    Biometrics 43, 1987). None if ``a`` equals ``b``.

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
    runs: tuple[Ranked, Ranked], qid: str, model: ClickModel, method: Method, sessions: int, rng: np.random.Generator
) -> Ints:
    """Outcomes [sessions]: 1 where B wins, -1 where A wins, 0 for ties."""
    places = [{hit.docid: rank for rank, hit in enumerate(run[: model.depth])} for run in runs]
    docids = list(places[0] | places[1])
    ranks = np.array([[own.get(docid, ABSENT) for docid in docids] for own in places], dtype=np.int64)
    if method == "team-draft":
        lists, teams = team_draft(ranks, sessions, model.depth, rng)
        credit = team_draft_credit(teams, model.clicks(qid, docids, lists, rng))
    else:
        lists = balanced(ranks, sessions, model.depth, rng)
        credit = balanced_credit(ranks, lists, model.clicks(qid, docids, lists, rng))
    outcomes: Ints = np.sign(credit[:, 1] - credit[:, 0])
    return outcomes


def team_draft(ranks: Ints, sessions: int, depth: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Team-draft interleaving.

    In each round both systems add their best document that is not in the list yet; a coin decides who goes first. The
    list ends when one of them has no further document (Radlinski, Kurup and Joachims, How does clickthrough data
    reflect retrieval quality?, CIKM 2008). Random clicks then favour neither system, if both runs fill the page.

    ``ranks``: [2, documents], rank from 0 of each document in A and in B; ``ABSENT`` where a run lacks it. Returns two
    arrays [sessions, depth], -1 past the end: the lists, as positions in the second axis of ``ranks``, and the teams, 0
    for documents that A added and 1 for documents that B added.
    """
    every = np.arange(sessions)
    left = np.repeat(ranks[None], sessions, axis=0)  # [sessions, 2, documents]
    coins = rng.integers(2, size=(sessions, (depth + 1) // 2))
    lists, teams = np.full((2, sessions, depth), -1)
    for place in range(depth):
        going = (left.min(axis=2) < ABSENT).all(axis=1)
        team = coins[:, place // 2] ^ (place % 2)
        added = left[every, team].argmin(axis=1)
        lists[:, place], teams[:, place] = np.where(going, (added, team), -1)
        left[every, :, added] = ABSENT
    return lists, teams


def team_draft_credit(teams: Ints, clicks: Bools) -> Ints:
    """[sessions, 2]: clicks on the documents of each team."""
    return np.stack([(clicks & (teams == team)).sum(axis=1) for team in (0, 1)], axis=1)


def balanced(ranks: Ints, sessions: int, depth: int, rng: np.random.Generator) -> Ints:
    """Balanced interleaving (Joachims, Evaluating retrieval performance using clickthrough data, 2003).

    One coin decides who goes first; then the systems add their documents in turn, skipping those already in the list.
    Each prefix of the list holds the top documents of both runs: equally many, or one more of one run. Arguments and
    returned lists are those of :func:`team_draft`.
    """
    both = np.full((2, depth), -1)
    for first in (0, 1):
        steps = 2 * ranks + np.array([[first], [1 - first]])  # turn in which each system would add a document
        last = np.where(ranks < ABSENT, steps, -1).max(axis=1).min()  # then one system has no more documents
        order = np.argsort(steps.min(axis=0))
        added = order[steps.min(axis=0)[order] <= last][:depth]
        both[first, : len(added)] = added
    lists: Ints = both[rng.integers(2, size=sessions)]
    return lists


def balanced_credit(ranks: Ints, lists: Ints, clicks: Bools) -> Ints:
    """[sessions, 2]: clicks on the first k documents of each run; k is the smallest that covers the lowest click.

    After Chapelle, Joachims, Radlinski and Yue, Large-scale validation and analysis of interleaved search evaluation,
    TOIS 30, 2012.
    """
    placed = ranks[:, lists]  # [2, sessions, depth]
    lowest = lists.shape[1] - 1 - clicks[:, ::-1].argmax(axis=1)
    reached = placed.min(axis=0)[np.arange(len(lists)), lowest]
    credit: Ints = (clicks & (placed <= reached[:, None])).sum(axis=2).T
    return credit
