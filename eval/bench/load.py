"""A server under load, open loop: requests come when they come, whether or not the ones before are answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np

from mixlm_rerank.errors import MixLMError, optional_import

__all__ = ["Point", "open_loop", "saturation"]

GROWTH = 1.5
HALVINGS = 2
KEPT = 0.99  # a rate is served if so much of it is answered in time


@dataclass(frozen=True)
class Point:
    """What a rate of requests met with.

    Attributes:
        offered, answered: requests a second; ``answered`` with 200 within the deadline.
        refused: share answered with 429.
        late, failed: shares answered after the deadline, and otherwise or not at all.
        milliseconds: latency of those answered with 200: median, 90th, 99th percentile.
    """

    offered: float
    answered: float
    refused: float
    late: float
    failed: float
    milliseconds: tuple[float, float, float]


def open_loop(
    url: str, bodies: Sequence[dict[str, object]], *, rate: float, seconds: float, deadline: float, senders: int = 1
) -> Point:
    """Send requests at random moments (Poisson), ``rate`` a second; ``bodies`` in turn.

    ``senders``: processes among which the rate is divided. One sends a few hundred requests a second; more would
    wait in it and not in the server.

    Raises MissingDependency.
    """
    shares = [bodies[number::senders] or bodies for number in range(senders)]
    plans = [_Plan(url, own, rate / senders, seconds, deadline, number) for number, own in enumerate(shares)]
    if senders == 1:
        return _point(asyncio.run(_send(plans[0])), seconds, deadline)
    spawn = get_context("spawn")
    with ProcessPoolExecutor(senders, spawn, _together, (spawn.Barrier(senders),)) as pool:
        return _point(sum(pool.map(_send_together, plans), []), seconds, deadline)


def saturation(ask: Callable[[float], Point], *, start: float) -> tuple[float, list[Point]]:
    """The highest rate that is served, and all points.

    ``ask``: of a rate, what it meets with. Rates grow by half from ``start`` on until one is not served; then the
    gap is halved, and halved again. Raises MixLMError if none is served.
    """
    points: list[Point] = []

    def served(rate: float) -> bool:
        points.append(ask(rate))
        return points[-1].answered > 0 and points[-1].answered >= KEPT * points[-1].offered

    best, rate = 0.0, start
    while served(rate):
        best, rate = rate, rate * GROWTH
    too_much = rate
    for _ in range(HALVINGS):
        middle = (best + too_much) / 2
        best, too_much = (middle, too_much) if served(middle) else (best, middle)
    if not best:
        raise MixLMError(f"not even {too_much:.2g} requests a second are answered in time")
    return best, points


@dataclass(frozen=True)
class _Plan:
    """What one process sends; ``seed``: of its moments."""

    url: str
    bodies: Sequence[dict[str, object]]
    rate: float
    seconds: float
    deadline: float
    seed: int


async def _send(plan: _Plan) -> list[tuple[int, float]]:
    """Status (0: none) and seconds of every request."""
    httpx = _httpx()
    draw = random.Random(plan.seed)
    moments, moment = [], 0.0
    while (moment := moment + draw.expovariate(plan.rate)) < plan.seconds:
        moments.append(moment)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    async with httpx.AsyncClient(limits=limits, timeout=4 * plan.deadline) as client:

        async def ask(moment: float, body: dict[str, object]) -> tuple[int, float]:
            await asyncio.sleep(max(0.0, started + moment - time.perf_counter()))
            begun = started + moment  # when it was due: waiting to be sent is waiting too
            try:
                status = (await client.post(f"{plan.url}/v2/rerank", json=body)).status_code
            except httpx.HTTPError:
                status = 0
            return status, time.perf_counter() - begun

        started = time.perf_counter()
        return await asyncio.gather(
            *(ask(each, plan.bodies[place % len(plan.bodies)]) for place, each in enumerate(moments))
        )


def _httpx() -> Any:
    with optional_import("the load test needs httpx", "bench"):
        import httpx
    return httpx


_start: Barrier


def _together(barrier: Barrier) -> None:
    global _start
    _start = barrier


def _send_together(plan: _Plan) -> list[tuple[int, float]]:
    """In a process of its own, when all are there."""
    _httpx()  # importing takes long
    _start.wait(60)
    return asyncio.run(_send(plan))


def _point(answers: Sequence[tuple[int, float]], seconds: float, deadline: float) -> Point:
    taken = [latency for status, latency in answers if status == 200]
    in_time = sum(latency <= deadline for latency in taken)
    statuses = [status for status, _ in answers]
    count = max(1, len(answers))
    middle, high, highest = np.percentile(taken, [50, 90, 99]).tolist() if taken else (float("nan"),) * 3
    return Point(
        offered=len(answers) / seconds,
        answered=in_time / seconds,
        refused=statuses.count(429) / count,
        late=(statuses.count(504) + len(taken) - in_time) / count,
        failed=sum(status not in (200, 429, 504) for status in statuses) / count,
        milliseconds=(1e3 * middle, 1e3 * high, 1e3 * highest),
    )
