"""The load test tells served from refused, late and failed; the benchmark of the server runs through."""

from __future__ import annotations

import asyncio
import json
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
from mixlm_rerank.eval.bench.load import open_loop, saturation

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


def test_below_saturation_all_is_answered(served: Any) -> None:
    point = open_loop(served(0.001, [200]), BODIES, rate=20, seconds=1.5, deadline=1.0)
    assert 10 < point.offered < 32 and point.answered == point.offered
    assert (point.refused, point.late, point.failed) == (0, 0, 0)
    assert 1 <= point.milliseconds[0] <= point.milliseconds[1] <= point.milliseconds[2] < 1000


def test_several_processes_send_together(served: Any) -> None:
    point = open_loop(served(0.001, [200, 429]), BODIES, rate=60, seconds=1.5, deadline=1.0, senders=2)
    assert 40 < point.offered < 85 and point.refused == pytest.approx(0.5, abs=0.05)
    assert (point.late, point.failed) == (0, 0)


def test_what_is_refused_late_or_failed_is_counted(served: Any) -> None:
    point = open_loop(served(0.0, [200, 429, 504, 500]), BODIES, rate=40, seconds=1.0, deadline=1.0)
    for share in (point.refused, point.late, point.failed):
        assert share == pytest.approx(0.25, abs=0.05)
    gone = open_loop("http://127.0.0.1:1", BODIES, rate=5, seconds=1.0, deadline=1.0)
    assert gone.failed == 1 and gone.answered == 0


def test_waiting_counts_from_the_moment_a_request_was_due(served: Any) -> None:
    """Twice as many as can be served: the last one waits for about half the time."""
    point = open_loop(served(0.05, [200]), BODIES, rate=40, seconds=1.0, deadline=0.2)
    assert point.late > 0.3 and point.milliseconds[2] > 400


def test_saturation_is_found(served: Any) -> None:
    url = served(0.02, [200])
    best, points = saturation(lambda rate: open_loop(url, BODIES, rate=rate, seconds=0.7, deadline=0.1), start=20)
    assert 5 < best < 60 and any(point.answered < 0.99 * point.offered for point in points)
    grown, halved = points[:-2], points[-2:]
    assert [point.offered for point in grown] == sorted(point.offered for point in grown)
    assert all(grown[-1].offered > point.offered for point in halved)


def test_a_server_that_serves_nothing_is_named(served: Any) -> None:
    url = served(0.0, [500])
    with pytest.raises(MixLMError, match="not even .* requests a second are answered in time"):
        saturation(lambda rate: open_loop(url, BODIES, rate=rate, seconds=0.3, deadline=0.5), start=20)


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
