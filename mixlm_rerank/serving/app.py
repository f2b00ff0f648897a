"""The application: routes, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.model.known_answer import known_answers
from mixlm_rerank.serving.batching import Batcher
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.failures import STATUS, RequestFailed, status_of
from mixlm_rerank.serving.guard import Guard
from mixlm_rerank.serving.metrics import Metrics
from mixlm_rerank.serving.rerank import plan, respond
from mixlm_rerank.serving.schemas import Failure, RerankRequest, RerankResponse

__all__ = ["Limits", "create_app"]

RERANK_PATHS = ("/v2/rerank", "/v1/rerank", "/rerank")
TOLERANCE = 1e-3  # log-odds, between the known answers at start and now


@dataclass(frozen=True)
class Limits:
    """Attributes:
    body: bytes of a request.
    waiting: documents that may wait to be ranked; requests beyond are refused (429).
    seconds: deadline of a request.
    """

    body: int = 32 << 20
    waiting: int = 20_000
    seconds: float = 10.0


def create_app(catalogue: Catalogue, limits: Limits = Limits(), api_key: str | None = None) -> FastAPI:
    """The server's application over loaded models and open indexes."""
    metrics = Metrics()
    state: dict[str, Any] = {"ready": False}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state["batcher"] = Batcher(waiting=limits.waiting, observe=metrics.batched)
        state["batcher"].start()
        state["known"] = {
            name: await asyncio.to_thread(known_answers, model) for name, model in catalogue.models.items()
        }
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look at it again and again
        state["ready"] = True
        yield
        state["ready"] = False
        await state["batcher"].close()

    app = FastAPI(
        title="mixlm-rerank",
        version=version("mixlm-rerank"),
        description="Rerank by docid out of a token index, or by text. Cohere's contract, extended.",
        lifespan=lifespan,
        redoc_url=None,
    )
    paths = frozenset((*RERANK_PATHS, "/health", "/ready", "/metrics", "/"))
    app.add_middleware(Guard, metrics=metrics, limit=limits.body, key=api_key, paths=paths)
    _answer_failures(app, metrics)

    async def rerank(body: RerankRequest) -> RerankResponse:
        """Rank documents for a query, best first."""
        if not state["ready"]:
            raise RequestFailed(503, "not ready yet", retry_after=1)
        started = time.perf_counter()
        made = await asyncio.to_thread(plan, body, catalogue)
        planned = time.perf_counter()
        batcher: Batcher = state["batcher"]
        docs = await batcher.rerank(made.reranker, body.query, made.documents.candidates, limits.seconds)
        metrics.documents.inc(len(docs))
        metrics.missing.inc(sum(doc.missing for doc in docs))
        timings = {"prepare": 1e3 * (planned - started), "rank": 1e3 * (time.perf_counter() - planned)}
        return respond(body, made, docs, {name: round(value, 3) for name, value in timings.items()})

    failures = {status: {"model": Failure, "description": text} for status, text in STATUS.items()}
    for place, path in enumerate(RERANK_PATHS):
        app.post(
            path,
            response_model=RerankResponse,
            response_model_exclude_none=True,
            responses=failures,  # type: ignore[arg-type]
            include_in_schema=place == 0,
        )(rerank)

    @app.get("/health")
    async def health() -> JSONResponse:
        """Does every model give the answer that it gave at the start?"""
        if "known" not in state:
            return _failure(503, "not ready yet")
        for name, model in catalogue.models.items():
            found = await asyncio.to_thread(known_answers, model)
            off = max(abs(now - then) for now, then in zip(found, state["known"][name], strict=True))
            if not off <= TOLERANCE:
                return _failure(503, f"model {name!r} no longer gives its known answer (off by {off:.3g}): restart")
        return JSONResponse({"status": "ok", "models": list(catalogue.models), "indexes": list(catalogue.indexes)})

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Will a request be answered now?"""
        return JSONResponse({"status": "ready"}) if state["ready"] else _failure(503, "not ready")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """For Prometheus."""
        if "batcher" in state:
            metrics.waiting.set(state["batcher"].waiting)
        return PlainTextResponse(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    return app


def _answer_failures(app: FastAPI, metrics: Metrics) -> None:
    """Every error is ``{"message": ...}``."""

    @app.exception_handler(RequestFailed)
    async def failed(request: Request, error: RequestFailed) -> JSONResponse:
        if error.status == 429:
            metrics.refused.inc()
        return _failure(error.status, error.message, error.retry_after)

    @app.exception_handler(MixLMError)
    async def refused(request: Request, error: MixLMError) -> JSONResponse:
        return _failure(status_of(error), str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = jsonable_encoder(
            error.errors(), custom_encoder={bytes: lambda value: value.decode("utf-8", "replace")}
        )[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
        malformed = first["type"] in ("json_invalid", "missing") or not request.headers.get("content-type", "x")
        return _failure(400 if malformed else 422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return _failure(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


def _failure(status: int, message: str, retry_after: int | None = None) -> JSONResponse:
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONResponse({"message": message}, status, headers)
