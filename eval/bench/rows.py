"""What follows from a cell's seconds: documents a second, speed-up, and how much of what the arithmetic allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from mixlm_rerank.eval.bench.contenders import BEST
from mixlm_rerank.eval.bench.timing import Spread, spread

__all__ = ["Row", "rows"]


@dataclass(frozen=True)
class Row:
    """One contender in one cell.

    Attributes:
        tokens: its token budget; None for full text.
        rounds: how many times it was measured.
        milliseconds: of a query with all its candidates.
        documents_per_second: the same in documents; ``low`` and ``high`` are quartiles.
        speedup: over the cross-encoder at its best settings, medians.
        flop_ratio: operations of full text over its own.
        realised: speed-up over FLOP ratio.
        gflops: operations a second, in 10^9.
        of_machine: the same as a share of the rate of float32 matrix products on this machine.
        outside: share of time outside the ranker's forward pass; of it ``query``: the item encoder reads the query.
    """

    name: str
    kind: str
    tokens: int | None
    settings: str
    rounds: int
    milliseconds: Spread
    documents_per_second: Spread
    speedup: float
    flop_ratio: float
    realised: float
    gflops: float
    of_machine: float
    outside: float | None
    query: float | None


def rows(cell: Mapping[str, Any], rate: float) -> list[Row]:
    """All contenders of a cell, in its order. ``rate``: of matrix products, floating-point operations a second."""
    contenders = cell["contenders"]
    (best,) = (median(each["seconds"]) for each in contenders if each["name"] == BEST)
    return [_row(each, cell["candidates"], cell["full_text_flops"], best, rate) for each in contenders]


def _row(contender: Mapping[str, Any], candidates: int, full_text: float, best: float, rate: float) -> Row:
    seconds = spread(contender["seconds"])
    flops, shares = contender["flops"], contender["shares"]
    speedup, ratio, a_second = best / seconds.median, full_text / flops, flops / seconds.median
    return Row(
        name=contender["name"],
        kind=contender["kind"],
        tokens=contender["tokens"],
        settings=contender["settings"],
        rounds=len(contender["seconds"]),
        milliseconds=Spread(1e3 * seconds.median, 1e3 * seconds.low, 1e3 * seconds.high),
        documents_per_second=Spread(candidates / seconds.median, candidates / seconds.high, candidates / seconds.low),
        speedup=speedup,
        flop_ratio=ratio,
        realised=speedup / ratio,
        gflops=a_second / 1e9,
        of_machine=a_second / rate,
        outside=None if shares is None else shares["query"] + shares["rest"],
        query=None if shares is None else shares["query"],
    )
