"""uvicorn, in one process or several behind one address, with time limits for idle connections and for shutdown."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving.metrics import SHARED_FOLDER

__all__ = ["run"]

CONNECTIONS = 900  # a process may often open no more than 1,024 files
KEEP_ALIVE_SECONDS = 5
SPARE_SECONDS = 5  # granted after the time that requests may take; then a process that has not ended is killed


def run(
    make: Callable[[], Any], host: str, port: int, deadline: float, logging: dict[str, Any], workers: int = 1
) -> None:
    """Serve until SIGINT or SIGTERM. Accepted requests are still answered; a second signal exits immediately.

    Args:
        make: makes the application; it is pickled and called in every worker.
        deadline: time limit of a request, in seconds.
    """
    _ignore_reloads()
    config = uvicorn.Config(
        make() if workers == 1 else partial(_in_worker, make, workers),
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        http=_Connection,
        log_config=logging,
        access_log=False,
        timeout_graceful_shutdown=math.ceil(deadline) + 1,  # by then all requests are answered, by a 504 at worst
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_worker_healthcheck=30,
    )
    if workers > 1:
        _Workers(config, [config.bind_socket()]).run()
        return
    with suppress(KeyboardInterrupt):  # raised again at the end of an orderly shutdown
        _Server(config).run()


class _Connection(H11Protocol):
    """A connection that is closed if it begins no new request for twice the time that a request may take.

    This ends connections with half-sent headers or unread answers. It uses h11 because httptools, uvicorn's choice
    where it is installed, does not limit the size of headers.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        seconds = 2 * (self.config.timeout_graceful_shutdown or 0) + self.config.timeout_keep_alive
        self._timer = self.loop.call_later(seconds, self._check, self.cycle)

    def _check(self, before: object) -> None:
        if self.cycle is before:
            self.transport.abort()
        else:
            self._watch()


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        _later(self.config, os._exit)  # a batch that never returns would block an orderly shutdown
        super().handle_exit(sig, frame)


class _Workers(Multiprocess):
    """Starts workers, replaces those that die, and passes signals on to them."""

    def run(self) -> None:
        """Run until SIGINT or SIGTERM. Raises SystemExit if no worker can start."""
        self._stopping = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        with TemporaryDirectory(prefix="mixlm-rerank-") as folder:
            os.environ[SHARED_FOLDER] = folder
            super().run()

    def init_processes(self) -> None:
        """Start one worker and then the others, so that only one downloads files and reports errors."""
        wanted, self.processes_num = self.processes_num, 1
        super().init_processes()
        (first,) = self.processes
        while not first.wait_until_ready(1):
            self.handle_signals()
            if self.should_exit.is_set():
                return
            if not first.process.is_alive():
                raise SystemExit(2)
        self.processes_num = wanted - 1
        super().init_processes()
        self.processes_num = wanted

    def keep_subprocess_alive(self) -> None:
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid, os.environ[SHARED_FOLDER])

    def handle_hup(self) -> None:
        """Pass SIGHUP on. Each worker reloads by itself; if that fails, it keeps its old models and indexes."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGHUP)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            self._kill(128 + number)
        self._stopping = True
        self.signal_queue.append(number)
        _later(self.config, self._kill)

    def _kill(self, code: int) -> None:
        for process in self.processes:
            process.process.kill()
        os._exit(code)


def _later(config: uvicorn.Config, end: Callable[[int], object]) -> None:
    """Call ``end(1)`` if the process still runs ``SPARE_SECONDS`` after all requests must have been answered."""
    timer = threading.Timer((config.timeout_graceful_shutdown or 0) + SPARE_SECONDS, end, (1,))
    timer.daemon = True
    timer.start()


def _in_worker(make: Callable[[], Any], workers: int) -> Any:
    """Make the application in one of ``workers`` processes, which computes with its share of the threads."""
    import torch

    _ignore_reloads()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    try:
        return make()
    except (MixLMError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)  # not uvicorn's STARTUP_FAILURE: a worker that could not be replaced would end all others


def _ignore_reloads() -> None:
    """Ignore SIGHUP until the process has loaded and handles it: what it loads is new anyway."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end_with_parent() -> None:
    """End this worker when its supervisor ends, even if the supervisor was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
