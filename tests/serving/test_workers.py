"""Several processes behind one address: they replace each other, count together, and end together."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]  # a worker takes some ten seconds to start

BODY = {"query": "a dog", "document_ids": ["d1", "d2"]}


def workers(served: Any) -> set[psutil.Process]:
    children = psutil.Process(served.process.pid).children()
    return {child for child in children if "spawn_main" in command(child)}


def command(process: psutil.Process) -> str:
    """Nothing for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def ask(url: str, times: int) -> int:
    """How often there was no answer: a worker was killed that had taken the connection."""
    lost = 0
    for _ in range(times):
        try:
            assert httpx.post(f"{url}/v2/rerank", json=BODY, timeout=60).status_code == 200
        except httpx.TransportError:
            lost += 1
    return lost


def test_one_is_killed_all_reload_and_all_stop_gently(
    start: Callable[..., Any], served_folder: tuple[Path, Path], metrics: Callable[..., str]
) -> None:
    served = start(served_folder[1], "--workers", "2")
    while served.err.read_text().count("startup complete") < 2:
        time.sleep(0.05)
    assert ask(served.url, 10) == 0
    victim = next(iter(workers(served)))
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, served.url, 20) for _ in range(4)]
        victim.kill()
        assert sum(answers.result() for answers in asking) <= 4  # what each had under way
    while len(workers(served) - {victim}) < 2:
        time.sleep(0.05)
    counted = metrics(served.url, "mixlm_waiting_candidates 0.0")  # also the one that is gone
    names = 'index="docs",model="tiny",path="/v2/rerank",status="200"'
    (line,) = (line for line in counted.splitlines() if line.startswith("mixlm_requests_total{") and names in line)
    assert float(line.split()[-1]) >= 86

    while httpx.get(f"{served.url}/ready").status_code != 200 or served.err.read_text().count("startup complete") < 3:
        time.sleep(0.05)
    served.process.send_signal(signal.SIGHUP)
    while served.err.read_text().count("reloaded: models ['tiny']; indexes ['docs']") < 2:
        time.sleep(0.05)
    assert ask(served.url, 4) == 0

    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST /v2/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 45\r\nConnection: close\r\n\r\n")
        while not any(
            each.raddr and each.status == "ESTABLISHED" for own in workers(served) for each in own.net_connections()
        ):
            time.sleep(0.05)
        served.process.send_signal(signal.SIGTERM)
        while served.err.read_text().count("Waiting for connections to close") < 1:
            time.sleep(0.05)
        client.sendall(b'{"query": "a dog", "document_ids": ["d1"]}   ')
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")
    assert served.process.wait() == 0
    assert "Traceback" not in served.err.read_text()


def test_one_that_cannot_be_replaced_yet_ends_no_other_and_none_is_left_without_a_supervisor(
    start: Callable[..., Any], served_folder: tuple[Path, Path], tmp_path: Path
) -> None:
    index, away = tmp_path / "tokens", tmp_path / "away"
    shutil.copytree(served_folder[1], index)
    served = start(index, "--workers", "2")
    while served.err.read_text().count("startup complete") < 2:
        time.sleep(0.05)
    index.rename(away)
    next(iter(workers(served))).kill()
    while served.err.read_text().count(f"error: no token index at {index}") < 2:  # it is tried again
        ask(served.url, 1)
    assert ask(served.url, 4) == 0
    away.rename(index)
    while served.err.read_text().count("startup complete") < 3:
        time.sleep(0.05)
    own = workers(served)
    served.process.kill()
    assert len(own) == 2 and psutil.wait_procs(own, timeout=120)[1] == []


def serve(options: str) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("mixlm-rerank"), "serve", *options.split()]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_cannot_be_served_is_said_once(served_folder: tuple[Path, Path]) -> None:
    done = serve(f"--workers 2 --port 0 --model tiny={served_folder[0]} --index docs=nowhere")
    assert done.returncode == 2 and done.stderr.count("error: no token index at nowhere") == 1
    assert "Traceback" not in done.stderr


def test_more_workers_than_cores_are_warned_of() -> None:
    """The address is none of this machine: it does not come to start them."""
    cores = len(os.sched_getaffinity(0))
    done = serve(f"--workers {cores + 1} --host 192.0.2.1 --model nowhere")
    assert f"warning: {cores + 1} workers share {cores} cores: give at most --workers {cores}" in done.stderr


def test_no_worker_is_refused(mixlm: Any) -> None:
    done = mixlm("serve --workers 0")
    assert done.code == 2 and "Invalid value for '--workers'" in done.err
