"""Open-loop load test of a server: requests are sent on schedule, whether or not earlier ones are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random
from typing import Any

import numpy as np

from mixlm_rerank.errors import MixLMError, optional_import

with optional_import("the load test needs httpx", "bench"):
    import httpx

__all__ = ["Body", "Point", "httpx", "open_loop", "saturation"]

GROWTH, HALVINGS = 1.5, 2
KEPT = 0.99  # a rate is served if this share of requests is answered in time

Body = dict[str, object]


@dataclass(frozen=True)
class Point:
    """The outcome of one request rate."""

    offered: float  # requests a second
    answered: float  # requests a second answered with 200 within the deadline
    refused: float  # share of requests answered with 429
    late: float  # share answered with 504, or with 200 after the deadline
    failed: float  # share of all other outcomes
    milliseconds: tuple[float, float, float]  # of requests answered with 200: median, 90th and 99th percentile


def open_loop(
    url: str, bodies: Sequence[Body], rate: float, *, seconds: float, deadline: float, senders: int = 1
) -> Point:
    """Send ``rate`` requests a second at random times (Poisson), with ``bodies`` in turn.

    ``senders``: processes that share the rate. One process can send a few hundred requests a second; beyond that,
    requests would queue in it and not in the server.
    """
    plans = [
        (url, bodies[number::senders] or bodies, rate / senders, seconds, deadline, Random(number))
        for number in range(senders)
    ]
    if senders == 1:
        answers = asyncio.run(_answers(*plans[0]))
    else:
        spawn = get_context("spawn")
        with spawn.Manager() as manager, ProcessPoolExecutor(senders, spawn) as pool:
            together = manager.Barrier(senders)
            sent = [pool.submit(_send, together, *plan) for plan in plans]
            answers = [answer for each in sent for answer in each.result()]
    taken = [latency for status, latency in answers if status == 200]
    in_time = sum(latency <= deadline for latency in taken)
    statuses, count = [status for status, _ in answers], max(1, len(answers))
    median, high, highest = (1e3 * np.percentile(taken, [50, 90, 99])).tolist() if taken else [float("nan")] * 3
    return Point(
        offered=len(answers) / seconds,
        answered=in_time / seconds,
        refused=statuses.count(429) / count,
        late=(statuses.count(504) + len(taken) - in_time) / count,
        failed=sum(status not in (200, 429, 504) for status in statuses) / count,
        milliseconds=(median, high, highest),
    )


def saturation(ask: Callable[[float], Point], start: float) -> dict[str, Any]:
    """The highest ``rate`` that is served, and all ``points`` measured. ``ask``: measures a rate.

    Rates grow by half, from ``start``, until one is not served; then the gap is bisected twice. Raises MixLMError if no
    rate is served.
    """
    points: list[Point] = []

    def served(rate: float) -> bool:
        points.append(ask(rate))
        return points[-1].answered > 0 and points[-1].answered >= KEPT * points[-1].offered

    best, rate = 0.0, start
    while served(rate):
        best, rate = rate, rate * GROWTH
    for _ in range(HALVINGS):
        middle = (best + rate) / 2
        best, rate = (middle, rate) if served(middle) else (best, middle)
    if not best:
        raise MixLMError(f"not even {rate:.2g} requests a second are answered in time")
    return {"rate": best, "points": points}


def _send(together: Any, *plan: Any) -> list[tuple[int, float]]:
    """Send requests from this process, once all senders are ready."""
    together.wait(60)
    return asyncio.run(_answers(*plan))


async def _answers(
    url: str, bodies: Sequence[Body], rate: float, seconds: float, deadline: float, draw: Random
) -> list[tuple[int, float]]:
    """Status (0: none) and seconds of every request; ``draw``: random generator of the sending times."""
    moments, moment = [], 0.0
    while (moment := moment + draw.expovariate(rate)) < seconds:
        moments.append(moment)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    async with httpx.AsyncClient(limits=limits, timeout=4 * deadline) as client:

        async def ask(moment: float, body: Body) -> tuple[int, float]:
            due, status = started + moment, 0
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            with suppress(httpx.HTTPError):
                status = (await client.post(f"{url}/v2/rerank", json=body)).status_code
            return status, time.perf_counter() - due  # includes the time before it was sent

        started = time.perf_counter()
        return await asyncio.gather(*(ask(each, bodies[row % len(bodies)]) for row, each in enumerate(moments)))
