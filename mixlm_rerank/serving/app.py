"""The application: its routes, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.failures import STATUS, AnyJson, Failure, RequestFailed, answer_failures
from mixlm_rerank.serving.guard import ASSETS, Guard, Limits
from mixlm_rerank.serving.health import add_probes
from mixlm_rerank.serving.page import add_page
from mixlm_rerank.serving.rerank import respond
from mixlm_rerank.serving.schemas import (
    AnyRequest,
    BatchRequest,
    BatchResponse,
    RerankRequest,
    RerankResponse,
    TeiRequest,
    TeiResult,
)
from mixlm_rerank.serving.service import Service

__all__ = ["Limits", "create_app"]

DOCUMENTED = ("/v2/rerank", "/v2/rerank/batch")
RERANK_PATHS = (*DOCUMENTED, "/v1/rerank", "/rerank")  # with those of older clients and other servers


def create_app(opened: Callable[[], Catalogue], limits: Limits = Limits(), api_key: str | None = None) -> FastAPI:
    """The server's application. ``opened``: see :class:`Service`."""
    service = Service(opened, limits)

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

    async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
        """Rank documents for a query, best first."""
        return respond(body, *await service.rank(body, request))

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
                answer = RequestFailed.of(answer)
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
            response_class=AnyJson,
            response_model_exclude_none=True,
            responses=failures,  # type: ignore[arg-type]
            include_in_schema=path in DOCUMENTED,
        )(handler)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.page(), media_type="text/plain; version=0.0.4")

    add_probes(app, service)
    add_page(app, service)
    return app
