"""The command: it starts, follows its index, batches, stops gently, and stands up again after a kill."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixlm_rerank import Document, MixLM, TokenIndex

pytestmark = pytest.mark.processes


def ask(url: str, docids: list[str]) -> httpx.Response:
    return httpx.post(f"{url}/v2/rerank", json={"query": "a dog", "document_ids": docids}, timeout=60)


# The ranker of this server waits while there is such a file.
HELD = """
import time
from pathlib import Path
from mixlm_rerank import Reranker
plain = Reranker.rerank_batch
def held(*arguments, **options):
    while Path({file!r}).exists():
        time.sleep(0.01)
    return plain(*arguments, **options)
Reranker.rerank_batch = held
"""


def test_it_follows_its_index_and_stops_gently(
    start: Callable[..., Any],
    served_folder: tuple[Path, Path],
    metrics: Callable[..., str],
    model: MixLM,
    tmp_path: Path,
) -> None:
    index, hold = TokenIndex(served_folder[1]).copy(tmp_path / "copy", progress=False), tmp_path / "hold"
    served = start(index.path, "--deadline", "60", first=HELD.format(file=str(hold)))
    url, process = served.url, served.process
    assert ask(url, ["new"]).json()["results"][0]["missing"]
    index.add([Document("new", "a new dog")], model, progress=False)
    index.delete(["d2"])
    index.compact(progress=False)
    answer = ask(url, ["new", "d2", "d1"]).json()["results"]
    assert {result["document_id"]: result.get("missing") for result in answer} == {"new": None, "d1": None, "d2": True}
    hold.touch()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, url, ["d1", "d3"]) for _ in range(4)]
        metrics(url, "mixlm_waiting_candidates 8.0")
        process.send_signal(signal.SIGTERM)
        hold.unlink()
        assert [future.result().status_code for future in answers] == [200] * 4
    assert process.wait() in (0, -signal.SIGTERM)
    assert '"path": "/v2/rerank", "status": 200' in served.out.read_text()
    assert "Traceback" not in served.err.read_text()


def test_killed_under_load_it_serves_again(start: Callable[..., Any], served_folder: tuple[Path, Path]) -> None:
    served = start()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, served.url, ["d1", "d2", "d3"]) for _ in range(40)]
        assert next(as_completed(futures)).result().status_code == 200
        served.process.kill()
        for future in futures:
            if future.exception() is None:
                assert future.result().status_code == 200
    assert not TokenIndex.verify(served_folder[1], progress=False).damaged
    assert ask(start().url, ["d1"]).status_code == 200


HANGS = """
import threading
from mixlm_rerank import Reranker
from mixlm_rerank.serving import process
Reranker.rerank_batch = lambda *arguments, **options: threading.Event().wait()
process.SPARE_SECONDS = 0.5
"""


@pytest.mark.parametrize(
    "signals", [[signal.SIGTERM], pytest.param([signal.SIGINT, signal.SIGTERM], marks=pytest.mark.slow)]
)
def test_it_ends_though_the_ranker_hangs(
    start: Callable[..., Any], served_folder: tuple[Path, Path], metrics: Callable[..., str], signals: list[int]
) -> None:
    """By itself after a while, immediately at a second signal."""
    served = start(served_folder[1], "--deadline", "1" if len(signals) == 1 else "200", first=HANGS)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask, served.url, ["d1"])
        if len(signals) == 1:
            assert hanging.result().status_code == 504
        else:
            metrics(served.url, "mixlm_waiting_candidates 1.0")
        for number, each in enumerate(signals):
            while number and "Waiting for connections to close" not in served.err.read_text():
                time.sleep(0.01)
            served.process.send_signal(each)
        assert served.process.wait() == (1 if len(signals) == 1 else 128 + signals[-1])


def test_connections_have_limits(start: Callable[..., Any], served_folder: tuple[Path, Path]) -> None:
    """Of their number; and of the time without a request: half a header, a body that drips on after the refusal."""
    limits = "from mixlm_rerank.serving import process; process.CONNECTIONS, process.KEEP_ALIVE_SECONDS = 10, 0.1"
    served = start(served_folder[1], "--deadline", "0.5", "--max-body", "1", first=limits)
    address = "127.0.0.1", int(served.url.rpartition(":")[2])
    with ExitStack() as stack:
        half, drips = (stack.enter_context(socket.create_connection(address)) for _ in range(2))
        half.sendall(b"POST /v2/rerank HTTP/1.1\r\nHost")
        drips.sendall(b"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        assert drips.recv(10_000).startswith(b"HTTP/1.1 413")
        with pytest.raises(OSError):
            while True:
                drips.sendall(b" ")
                time.sleep(0.01)
        with suppress(ConnectionResetError):
            assert half.recv(100) == b""
        for _ in range(10):
            stack.enter_context(socket.create_connection(address))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{served.url}/ready")
    while True:
        with suppress(httpx.TransportError):
            assert httpx.get(f"{served.url}/ready").status_code == 200
            break


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_opentelemetry_traces_it_as_it_is(
    start: Callable[..., Any], served_folder: tuple[Path, Path], workers: str
) -> None:
    """A span a request, of the trace that the client has begun."""
    exporters = "--traces_exporter console --metrics_exporter none --logs_exporter none --bsp_schedule_delay 50"
    instrument = [Path(sys.executable).with_name("opentelemetry-instrument"), *exporters.split()]
    served = start(served_folder[1], "--workers", workers, by=instrument)
    trace = "0af7651916cd43dd8448eb211c80319c"
    body = {"query": "a dog", "document_ids": ["d1"]}
    answer = httpx.post(
        f"{served.url}/v2/rerank", json=body, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    )
    assert answer.status_code == 200
    while (
        '"name": "POST /v2/rerank"' not in (spans := served.out.read_text()) or f'"trace_id": "0x{trace}"' not in spans
    ):
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--model a/tiny --model b/tiny", "--model tiny is given twice, as a/tiny and as b/tiny"),
        ("--index tokens", "expected NAME=FOLDER or NAME=redis://"),
        ("--index a=nowhere", "no token index at nowhere"),
        ("--model nowhere/model", "nowhere/model"),
        ("--api-key-env NO_SUCH_VARIABLE", "the environment variable NO_SUCH_VARIABLE is empty"),
        ("--index a=redis://127.0.0.1:1/0#a", "does not answer"),
    ],
)
def test_what_cannot_be_served_is_said_before_it_listens(mixlm: Any, options: str, error: str) -> None:
    done = mixlm(f"serve --offline --device cpu {options}")
    assert done.code == 2 and error in done.err
