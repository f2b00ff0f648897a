"""uvicorn with time limits for idle connections and for shutdown."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["run"]

CONNECTIONS = 900  # a process may often open no more than 1,024 files
KEEP_ALIVE_SECONDS = 5
SPARE_SECONDS = 5


def run(app: Any, host: str, port: int, deadline: float, logging: dict[str, Any]) -> None:
    """Serve until SIGINT or SIGTERM. Accepted requests are still answered; a second signal exits immediately.

    ``deadline``: of a request, in seconds.
    """
    grace = math.ceil(deadline) + 1  # by then every accepted request has its answer, a 504 at worst
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_connection(2 * grace + KEEP_ALIVE_SECONDS),
        log_config=logging,
        access_log=False,
        timeout_graceful_shutdown=grace,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
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


def _connection(seconds: float) -> type[asyncio.Protocol]:
    """The protocol class of a connection, which is closed if it begins no new request for ``seconds``.

    That ends half-sent headers and answers that are not read. h11, because httptools, uvicorn's choice where it is
    installed, does not limit the size of headers.
    """

    class Connection(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()
            if len(self.connections) > CONNECTIONS:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _watch(self) -> None:
            self._timer = self.loop.call_later(seconds, self._check, self.cycle)

        def _check(self, before: object) -> None:
            if self.cycle is before:
                self.transport.abort()
            else:
                self._watch()

    return Connection
