"""Interleaved lists of two systems, and which of the two a user's clicks on such a list speak for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSENT", "balanced", "balanced_credit", "team_draft", "team_draft_credit"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ABSENT = 1 << 40  # rank of a document that a run lacks


def team_draft(ranks: Ints, sessions: int, depth: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Team-draft interleaving.

    In each round both systems add their best document that is not in the list yet; a coin says who begins. The list
    ends where one of them has no further document (Radlinski, Kurup and Joachims, How does clickthrough data reflect
    retrieval quality?, CIKM 2008). Random clicks then favour neither, if both runs fill the page.

    Args:
        ranks: [2, documents] from 0, of each document in A and in B; ``ABSENT`` where a run lacks it.

    Returns:
        lists: [sessions, depth] positions in the second axis of ``ranks``; -1 past the end.
        teams: alike, 0 for documents that A added and 1 for B's.
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

    One coin says who begins; then the systems add their documents in turn, skipping those that are in the list. Each
    prefix is made of as many first documents of the one as of the other, or one more. Arguments and returned lists are
    those of :func:`team_draft`.
    """
    both = np.full((2, depth), -1)
    for first in (0, 1):
        steps = 2 * ranks + np.array([[first], [1 - first]])  # of the turn in which each system would add a document
        last = np.where(ranks < ABSENT, steps, -1).max(axis=1).min()  # one of them then has no more
        order = np.argsort(steps.min(axis=0))
        added = order[steps.min(axis=0)[order] <= last][:depth]
        both[first, : len(added)] = added
    lists: Ints = both[rng.integers(2, size=sessions)]
    return lists


def balanced_credit(ranks: Ints, lists: Ints, clicks: Bools) -> Ints:
    """[sessions, 2]: clicks on the first k documents of each run, k being the least that covers the lowest click.

    After Chapelle, Joachims, Radlinski and Yue, Large-scale validation and analysis of interleaved search evaluation,
    TOIS 30, 2012.
    """
    placed = ranks[:, lists]  # [2, sessions, depth]
    lowest = lists.shape[1] - 1 - clicks[:, ::-1].argmax(axis=1)
    reached = placed.min(axis=0)[np.arange(len(lists)), lowest]
    credit: Ints = (clicks & (placed <= reached[:, None])).sum(axis=2).T
    return credit
