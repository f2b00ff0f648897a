"""Middleware around every request: id, deadline, body limits, API key, access log, metrics, format of errors."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving.metrics import Metrics
from mixlm_rerank.serving.schemas import RequestFailed

__all__ = ["ASSETS", "Guard", "Limits", "unless_gone"]

T = TypeVar("T")

ASSETS = "/docs-assets"
OPEN = ("/health", "/ready", "/metrics", "/", "/docs", "/openapi.json")  # need no API key, like ASSETS
GONE = 499  # in log and metrics, as in nginx: the client left before the answer
BODIES = 4  # all bodies together may be this many times as large as one
ID = re.compile(r"[\x21-\x7e]{1,128}")

_access, _log = logging.getLogger("mixlm_rerank.access"), logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of the queue."""

    body: int = 32 << 20  # bytes
    waiting: int = 20_000  # documents in the queue; requests beyond are refused (429)
    seconds: float = 10.0  # deadline, from the headers to the answer
    tokens: int = 500_000  # in texts that must be encoded


class Guard:
    """The middleware. ``key``: the API key that ``Authorization: Bearer`` must carry, or None.

    It sets ``request_id`` and ``deadline`` (of :func:`time.monotonic`) in the request's state. Routes may set ``model``
    and ``index`` there; these are labels of the metrics.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, limits: Limits, key: str | None, paths: frozenset[str]
    ) -> None:
        self._app, self._metrics, self._limits, self._key, self._paths = app, metrics, limits, key, paths
        self._held: dict[int, int] = {}  # bytes of the body of each running request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, begun = time.monotonic(), 500, False
        request = Request(scope, receive)
        asked = request.headers.get("x-request-id", "")
        identity = asked if ID.fullmatch(asked) else str(uuid.uuid4())
        scope.setdefault("state", {}).update(request_id=identity, deadline=started + self._limits.seconds)

        async def answer(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message.setdefault("headers", []).append((b"x-request-id", identity.encode("latin-1")))
            await send(message)

        try:
            await self._serve(request, answer)
        except ClientDisconnect:
            status = GONE
        except Exception as error:
            failure = RequestFailed.of(error) if isinstance(error, MixLMError) else error
            if not isinstance(failure, RequestFailed):
                _log.exception("request %s failed", identity)
                failure = RequestFailed(500, f"internal error; the server's log has it under {identity}")
            if not begun:
                await failure.response()(scope, receive, answer)
        finally:
            self._held.pop(id(scope), None)
            self._record(scope, identity, status, time.monotonic() - started)

    async def _serve(self, request: Request, send: Send) -> None:
        """Answer the request within its deadline. Raises RequestFailed, ClientDisconnect, the application's errors."""
        seconds, read = self._limits.seconds, False
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                self._admit(request)
                body = await self._body(request)
                read = True
                await self._app(request.scope, _replayed(body, request.receive), send)
        except TimeoutError:
            if not deadline.expired():
                raise
            if read:
                raise RequestFailed(504, f"the request took longer than its deadline of {seconds:g} s") from None
            late = f"the body did not arrive within {seconds:g} s: send it faster"
            raise RequestFailed(408, late, {"Connection": "close"}) from None  # do not wait for the rest of the body

    def _admit(self, request: Request) -> None:
        """Raises RequestFailed if a required API key is missing or wrong."""
        if self._key is None or _is_open(request.scope["path"]):
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = key.strip(" \t").encode("latin-1")  # the bytes as they came
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._key.encode()):
            wrong = "no API key, or a wrong one: send Authorization: Bearer KEY"
            raise RequestFailed(401, wrong, {"WWW-Authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        """The whole body. Raises RequestFailed if it exceeds a limit, ClientDisconnect."""
        limit = 0 if _is_open(request.scope["path"]) else self._limits.body  # open paths need no body
        together = BODIES * self._limits.body
        large = RequestFailed(413, f"the body is over the limit of {limit:,} bytes: send fewer or shorter documents")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise large
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise large
            self._held[id(request.scope)] = len(body)
            if sum(self._held.values()) > together:
                full = f"the bodies of all requests together are over the limit of {together:,} bytes"
                raise RequestFailed(429, f"{full}: try again later", {"Retry-After": "1"})
        return bytes(body)

    def _record(self, scope: Scope, identity: str, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.answered(path, status, seconds, scope["state"])
        line = {"id": identity, "method": scope["method"], "path": scope["path"], "status": status}
        _access.info(json.dumps({**line, "ms": round(1e3 * seconds, 2)}))


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``. If the client leaves first, cancel it and raise ClientDisconnect."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(f"{ASSETS}/")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that first gives the body, in one piece."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
