"""uvicorn with time limits for idle connections and for shutdown."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mixlm_rerank.serving.workers import Workers, ignore_reloads, in_worker

__all__ = ["run"]

CONNECTIONS = 900  # a process may often open no more than 1,024 files
KEEP_ALIVE_SECONDS = 5
SPARE_SECONDS = 5


def run(
    make: Callable[[], Any], host: str, port: int, deadline: float, logging: dict[str, Any], workers: int = 1
) -> None:
    """Serve until SIGINT or SIGTERM. Accepted requests are still answered; a second signal exits immediately.

    Args:
        make: makes the application; called in every worker, to which it is pickled.
        deadline: of a request, in seconds.
    """
    ignore_reloads()
    grace = math.ceil(deadline) + 1  # by then every accepted request has its answer, a 504 at worst
    config = uvicorn.Config(
        make() if workers == 1 else partial(in_worker, make, workers),
        factory=workers > 1,
        workers=workers,
        host=host,
        port=port,
        http=_Connection,
        log_config=logging,
        access_log=False,
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_worker_healthcheck=30,
    )
    if workers > 1:
        Workers(config, SPARE_SECONDS).run()
        return
    with suppress(KeyboardInterrupt):  # raised once more at the end of an orderly shutdown
        _Server(config).run()


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        # A batch that never returns would block an orderly shutdown.
        seconds = (self.config.timeout_graceful_shutdown or 0) + SPARE_SECONDS
        last = threading.Timer(seconds, os._exit, (1,))
        last.daemon = True
        last.start()
        super().handle_exit(sig, frame)


class _Connection(H11Protocol):
    """A connection that is closed if it begins no new request for twice the time that a request may take.

    That ends half-sent headers and answers that are not read. h11, because httptools, uvicorn's choice where it is
    installed, does not limit the size of headers.
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
