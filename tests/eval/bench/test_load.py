"""The load test tells served from refused, late and failed; the benchmark of the server runs through."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.load import Point, open_loop, saturation

BODIES: list[dict[str, object]] = [{"n": 0}, {"n": 1}]


@pytest.fixture
def served() -> Iterator[Callable[[float, list[int]], str]]:
    """``served(seconds, statuses)``: a server that takes so long for one request after the other, and answers these."""
    servers = []

    def serve(seconds: float, statuses: list[int]) -> str:
        lock, count = asyncio.Lock(), iter(range(10**9))

        async def answer(request: Any) -> JSONResponse:
            status = statuses[next(count) % len(statuses)]
            if status == 200:
                async with lock:
                    await asyncio.sleep(seconds)
            return JSONResponse({}, status)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        app = Starlette(routes=[Route("/v2/rerank", answer, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        threading.Thread(target=server.run, daemon=True).start()
        servers.append(server)
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.should_exit = True


def requests(rate: float, process: int = 0) -> int:
    """How many one process sends in a second: their moments are drawn by its number."""
    draw, moment, count = random.Random(process), 0.0, -1
    while moment < 1:
        moment, count = moment + draw.expovariate(rate), count + 1
    return count


def test_what_is_answered_in_time_is_counted(served: Any) -> None:
    point = open_loop(served(0.001, [200]), BODIES, rate=20, seconds=1.0, deadline=60)
    assert point.offered == point.answered == requests(20) > 10
    assert (point.refused, point.late, point.failed) == (0, 0, 0)
    assert 1 <= point.milliseconds[0] <= point.milliseconds[1] <= point.milliseconds[2]


def test_several_processes_send_together(served: Any) -> None:
    point = open_loop(served(0.001, [200, 429]), BODIES, rate=40, seconds=1.0, deadline=60, senders=2)
    assert point.offered == requests(20, 0) + requests(20, 1)
    assert point.refused == pytest.approx(0.5, abs=0.51 / point.offered)
    assert (point.late, point.failed) == (0, 0)


def test_what_is_refused_late_or_failed_is_counted(served: Any) -> None:
    point = open_loop(served(0.0, [200, 429, 504, 500]), BODIES, rate=40, seconds=1.0, deadline=60)
    for share in (point.refused, point.late, point.failed):
        assert share == pytest.approx(0.25, abs=1 / point.offered)
    gone = open_loop("http://127.0.0.1:1", BODIES, rate=5, seconds=1.0, deadline=1.0)
    assert gone.failed == 1 and gone.answered == 0


def test_waiting_counts_from_the_moment_a_request_was_due(served: Any) -> None:
    """Twice as many as can be served, at best: the last one waits for about half the time, or longer."""
    point = open_loop(served(0.05, [200]), BODIES, rate=40, seconds=1.0, deadline=0.2)
    assert point.late > 0.3 and point.milliseconds[2] > 400


def up_to(most: float) -> Callable[[float], Point]:
    """A server that answers so many requests a second."""
    return lambda rate: Point(rate, min(rate, most), 0, 0, 0, (1, 1, 1))


def test_saturation_is_found_by_growing_and_halving() -> None:
    found = saturation(up_to(33), start=20)
    assert [point.offered for point in found["points"]] == [20, 30, 45, 37.5, 33.75]
    assert found["rate"] == 30
    assert saturation(up_to(40), start=20)["rate"] == 37.5


def test_a_server_that_serves_nothing_is_named() -> None:
    with pytest.raises(MixLMError, match="not even .* requests a second are answered in time"):
        saturation(up_to(0), start=20)


@pytest.mark.slow
def test_the_benchmark_of_the_server(tiny: Any, tmp_path: Path, mixlm: Any) -> None:
    tiny("bert", tokens=4).save_pretrained(tmp_path / "model")
    command = f"bench serve --output {tmp_path}/out --model {tmp_path}/model --documents 200 --candidates 20"
    done = mixlm(f"{command} --seconds 1 --soak 2")
    assert done.code == 0, done.err
    assert "Saturation: " in done.out and "times as many" in done.out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert all(found[f"loads of {size}"]["0.5"]["answered"] > 0 for size in (20, 10))
    assert found["soak"]["after"] > 0
