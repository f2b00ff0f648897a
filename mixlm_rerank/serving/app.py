"""The application: its routes, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.failures import STATUS, RequestFailed, answer_failures, status_of
from mixlm_rerank.serving.guard import ASSETS, Guard, Limits, unless_gone
from mixlm_rerank.serving.health import Health
from mixlm_rerank.serving.page import add_page
from mixlm_rerank.serving.rerank import Plan, plan, respond
from mixlm_rerank.serving.schemas import (
    AnyRequest,
    BatchRequest,
    BatchResponse,
    Failure,
    Report,
    RerankRequest,
    RerankResponse,
    TeiRequest,
    TeiResult,
)
from mixlm_rerank.serving.service import Service
from mixlm_rerank.serving.sources import Sources
from mixlm_rerank.types import ScoredDoc

__all__ = ["Limits", "create_app", "open_app"]

DOCUMENTED = ("/v2/rerank", "/v2/rerank/batch")
RERANK_PATHS = (*DOCUMENTED, "/v1/rerank", "/rerank")  # with those of older clients and other servers


def open_app(sources: Sources, limits: Limits, api_key: str | None) -> FastAPI:
    """The application over what ``sources`` name, which SIGHUP opens anew."""
    return create_app(sources.open(), limits, api_key, sources.open)


def create_app(
    catalogue: Catalogue,
    limits: Limits = Limits(),
    api_key: str | None = None,
    reopen: Callable[[], Catalogue] | None = None,
) -> FastAPI:
    """The server's application over loaded models and open indexes. ``reopen``: see :class:`Service`."""
    service = Service(catalogue, limits, reopen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPIOffline(
        title="mixlm-rerank",
        version=version("mixlm-rerank"),
        description="Rerank by docid out of a token index, or by text. Cohere's contract, extended.",
        lifespan=lifespan,
        redoc_url=None,
        static_url=ASSETS,
        favicon_url="data:,",
        strict_content_type=False,  # JSON is all that is read
        dependencies=[Depends(HTTPBearer(auto_error=False))] if api_key else None,  # /docs then asks for it
    )
    paths = frozenset((*RERANK_PATHS, "/health", "/ready", "/metrics", "/", "/search", "/searchable"))
    app.add_middleware(Guard, metrics=service.metrics, limits=limits, key=api_key, paths=paths)
    answer_failures(app)

    async def ranked(request: Request, made: Plan) -> list[ScoredDoc]:
        """Within the request's deadline, and only while its client waits."""
        request.state.model, request.state.index = made.model, made.index or ""
        left = request.state.deadline - time.monotonic()
        ranking = service.batcher.rerank(made.reranker, made.query, made.documents.candidates, made.costs, left)
        docs: list[ScoredDoc] = await unless_gone(request.receive, ranking)
        service.metrics.ranked(docs, made.model, made.index or "")
        return docs

    async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
        """Rank documents for a query, best first."""
        started = time.perf_counter()
        with service.metrics.stage("prepare"):
            made = await asyncio.to_thread(plan, body, service.catalogue, limits.tokens)
        planned = time.perf_counter()
        docs = await ranked(request, made)
        timings = {"prepare": 1e3 * (planned - started), "rank": 1e3 * (time.perf_counter() - planned)}
        return respond(body, made, docs, {name: round(value, 3) for name, value in timings.items()})

    async def rerank_texts(body: AnyRequest, request: Request) -> RerankResponse | list[TeiResult]:
        """As the request asks: Cohere's contract, or with ``texts`` that of Text Embeddings Inference."""
        if not isinstance(body, TeiRequest):
            return await rerank(body, request)
        return [TeiResult.of(result) for result in (await rerank(body.as_ours(), request)).results]

    async def rerank_batch(body: BatchRequest, request: Request) -> BatchResponse:
        """Rank the documents of many queries. If one request fails, the call does."""
        answers = await asyncio.gather(*(rerank(one, request) for one in body.requests), return_exceptions=True)
        responses = []
        for place, answer in enumerate(answers):
            if isinstance(answer, MixLMError):
                raise RequestFailed(status_of(answer), f"requests.{place}: {answer}")
            if isinstance(answer, RequestFailed):
                answer.message = f"requests.{place}: {answer.message}"
            if isinstance(answer, BaseException):
                raise answer
            responses.append(answer)
        return BatchResponse(responses=responses)

    failures = {status: {"model": Failure, "description": text} for status, text in STATUS.items()}
    handlers: list[Callable[..., Awaitable[object]]] = [rerank, rerank_batch, rerank, rerank_texts]
    for path, handler in zip(RERANK_PATHS, handlers, strict=True):
        app.post(
            path,
            response_class=_Json,
            response_model_exclude_none=True,
            responses=failures,  # type: ignore[arg-type]
            include_in_schema=path in DOCUMENTED,
        )(handler)

    health = Health(service)

    @app.get("/health", response_model=Report, responses={503: {"model": Report}})
    async def of_process() -> JSONResponse:
        """Is this process sound? It fails where a restart helps; known answers are asked every few seconds at most."""
        return await health.process()

    @app.get("/ready", response_model=Report, responses={503: {"model": Report}})
    async def of_requests() -> JSONResponse:
        """Will a request be answered now? It fails, too, where an index cannot be read."""
        return await health.requests()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.page(), media_type="text/plain; version=0.0.4")

    add_page(app, service, ranked)
    return app


class _Json(JSONResponse):
    """UTF-8; or JSON's escapes, where a docid or a text holds half a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
