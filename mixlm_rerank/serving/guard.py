"""Around every request: an id, a body limit, an API key, the access log, the metrics, the shape of errors."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixlm_rerank.serving.metrics import Metrics

__all__ = ["ClientGone", "Guard", "unless_gone"]

T = TypeVar("T")

OPEN = ("/health", "/ready", "/metrics", "/", "/docs", "/openapi.json")  # without an API key
GONE = 499  # in log and metrics, as nginx has it: nobody was there to be answered
ID = re.compile(r"[\x21-\x7e]{1,128}")

_access, _log = logging.getLogger("mixlm_rerank.access"), logging.getLogger(__name__)


class ClientGone(Exception):
    """The client has closed its connection."""


class Guard:
    """Middleware. ``limit``: bytes of a body. ``key``: what ``Authorization: Bearer`` must bring, or None."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, limit: int, key: str | None, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._limit, self._key, self._paths = app, metrics, limit, key, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        headers = {name.lower(): value for name, value in scope["headers"]}
        asked = headers.get(b"x-request-id", b"").decode("latin-1")
        identity = asked if ID.fullmatch(asked) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = identity
        begun = False

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message.setdefault("headers", []).append((b"x-request-id", identity.encode("latin-1")))
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is None:
                limit = 0 if scope["path"] in OPEN else self._limit  # anybody may ask these
                body = await _body(headers, receive, limit)
                if body is None:
                    refusal = (
                        413,
                        f"the body is over the limit of {limit:,} bytes: send fewer or shorter documents",
                    )
                else:
                    await self._app(scope, _replayed(body, receive), answer)
            if refusal is not None:
                await _send_failure(answer, *refusal)
        except ClientGone:
            status = GONE
        except Exception:
            _log.exception("request %s failed", identity)
            if not begun:
                await _send_failure(answer, 500, f"internal error; the server's log has it under {identity}")
        finally:
            self._record(scope, identity, status, time.perf_counter() - started)

    def _refusal(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        if self._key is None or path in OPEN:
            return None
        given = headers.get(b"authorization", b"")
        if hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            return None
        return 401, "no API key, or a wrong one: send Authorization: Bearer KEY"

    def _record(self, scope: Scope, identity: str, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        line = {"id": identity, "method": scope["method"], "path": scope["path"], "status": status}
        _access.info(json.dumps({**line, "ms": round(1e3 * seconds, 2)}))


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives, or raises. If the client leaves before, ``work`` is cancelled, and ClientGone raised."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes | None:
    """The whole body; ``None`` if it is over the limit. Raises ClientGone."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > limit:
        return None
    parts: list[bytes] = []
    held = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        held += len(part)
        if held > limit:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` with the body in one piece."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _send_failure(send: Send, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
