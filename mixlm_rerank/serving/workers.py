"""Several processes behind one address: uvicorn's supervisor, with an end to every shutdown."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving.metrics import SHARED_FOLDER

__all__ = ["Workers", "ignore_reloads", "in_worker"]


class Workers(Multiprocess):
    """Starts workers, replaces those that die, and passes signals on to them.

    ``spare``: seconds until they are killed that have not ended by themselves after the time that requests may take.
    """

    def __init__(self, config: uvicorn.Config, spare: float) -> None:
        super().__init__(config, [config.bind_socket()])
        self._stopping = False
        self._seconds = (config.timeout_graceful_shutdown or 0) + spare
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Until SIGINT or SIGTERM. Raises SystemExit if no worker can start."""
        with TemporaryDirectory(prefix="mixlm-rerank-") as folder:
            os.environ[SHARED_FOLDER] = folder
            super().run()

    def init_processes(self) -> None:
        """The first one alone: it alone downloads, and says what is wrong."""
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
        """Each worker reloads by itself, and goes on with what it has if that fails."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                if process.pid is not None:
                    os.kill(process.pid, signal.SIGHUP)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            self._kill(128 + number)
        self._stopping = True
        self.signal_queue.append(number)
        last = threading.Timer(self._seconds, self._kill, (1,))
        last.daemon = True
        last.start()

    def _kill(self, code: int) -> None:
        for process in self.processes:
            process.process.kill()
        os._exit(code)


def in_worker(make: Callable[[], Any], workers: int) -> Any:
    """Make the application in one of so many workers, each of which computes with its share of the threads."""
    import torch

    ignore_reloads()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    try:
        return make()
    except (MixLMError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)  # not uvicorn's STARTUP_FAILURE, with which a worker that cannot be replaced ends all others


def ignore_reloads() -> None:
    """Until a process has loaded, when it listens to SIGHUP: what it loads is new anyway."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end_with_parent() -> None:
    """A supervisor that was killed leaves no workers behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
