"""The FastAPI application: routes, health probes, startup and shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving import schemas
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.guard import ASSETS, Guard, Limits
from mixlm_rerank.serving.page import add_page
from mixlm_rerank.serving.rerank import respond
from mixlm_rerank.serving.service import Service

__all__ = ["Limits", "create_app"]

DOCID = "is this index readable?"  # looked up by /ready; the index need not hold it


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
        default_response_class=schemas.AnyJson,
        redoc_url=None,
        static_url=ASSETS,
        favicon_url="data:,",
        strict_content_type=False,  # JSON is all that is read
        dependencies=[Depends(HTTPBearer(auto_error=False))] if api_key else None,  # /docs then asks for it
    )

    responses = {status: {"model": schemas.Failure, "description": text} for status, text in schemas.FAILURES.items()}
    options: dict[str, Any] = {"response_model_exclude_none": True, "responses": responses}

    @app.post("/v2/rerank", **options)
    @app.post("/v1/rerank", include_in_schema=False, **options)  # for older clients
    async def rerank(body: schemas.RerankRequest, request: Request) -> schemas.RerankResponse:
        """Rank documents for a query, best first."""
        return respond(body, *await service.rank(body, request))

    @app.post("/rerank", include_in_schema=False, **options)  # for clients of other servers
    async def rerank_texts(
        body: schemas.AnyRequest, request: Request
    ) -> schemas.RerankResponse | list[schemas.TeiResult]:
        """Answer by Cohere's contract or, for a request with ``texts``, by that of Text Embeddings Inference."""
        if not isinstance(body, schemas.TeiRequest):
            return await rerank(body, request)
        return [schemas.TeiResult.of(result) for result in (await rerank(body.as_ours(), request)).results]

    @app.post("/v2/rerank/batch", **options)
    async def rerank_batch(body: schemas.BatchRequest, request: Request) -> schemas.BatchResponse:
        """Rank the documents of many queries. If one request fails, the call does."""
        answers = await asyncio.gather(*(rerank(one, request) for one in body.requests), return_exceptions=True)
        responses = []
        for place, answer in enumerate(answers):
            if isinstance(answer, MixLMError):
                answer = schemas.RequestFailed.of(answer)
            if isinstance(answer, schemas.RequestFailed):
                answer.message = f"requests.{place}: {answer.message}"
            if isinstance(answer, BaseException):
                raise answer
            responses.append(answer)
        return schemas.BatchResponse(responses=responses)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """For Prometheus."""
        return PlainTextResponse(service.metrics.page(), media_type="text/plain; version=0.0.4")

    _add_probes(app, service)
    add_page(app, service)
    schemas.answer_failures(app)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.add_middleware(Guard, metrics=service.metrics, limits=limits, key=api_key, paths=paths)
    return app


class Problem(BaseModel):
    """``part``: ``ranker``, ``model NAME``, ``index NAME`` or ``reload``. ``message``: what is wrong, what to do."""

    part: str
    message: str


class Report(BaseModel):
    """Of a probe. ``status``: ``ok`` or ``ready``, else ``failing``; ``message`` then joins the problems."""

    status: str
    message: str | None = None
    models: list[str]
    indexes: list[str]
    problems: list[Problem]


def _add_probes(app: FastAPI, service: Service) -> None:
    """The routes /health and /ready."""

    @app.get("/health", response_model=Report, responses={503: {"model": Report}})
    async def health() -> JSONResponse:
        """Is this process sound? It fails where a restart helps; known answers are asked every few seconds at most."""
        if service.batcher.alive:
            await service.look()
        return _report(service, "ok", _of_process(service))

    @app.get("/ready", response_model=Report, responses={503: {"model": Report}})
    async def ready() -> JSONResponse:
        """Will a request be answered now? It fails, too, where an index cannot be read."""
        found = _of_process(service)
        for name, store in service.catalogue.indexes.items():
            try:
                await asyncio.to_thread(store.fetch, [DOCID], 1)
            except MixLMError as error:
                found.append(Problem(part=f"index {name}", message=str(error)))
        failed = service.not_reloaded
        old = [Problem(part="reload", message=f"{failed} (what was loaded before is served)")] if failed else []
        return _report(service, "ready", found, old)


def _of_process(service: Service) -> list[Problem]:
    """Problems of this process, which a restart solves."""
    stuck = f"no batch has returned for over {service.limits.seconds:g} s: restart the server"
    changed = "it no longer gives its known answer: its weights have changed in memory; restart the server"
    found = [] if service.batcher.alive else [Problem(part="ranker", message=stuck)]
    return found + [Problem(part=f"model {name}", message=changed) for name in service.changed]


def _report(service: Service, good: str, problems: Sequence[Problem], notes: Sequence[Problem] = ()) -> JSONResponse:
    report = Report(
        status="failing" if problems else good,
        message="; ".join(f"{each.part}: {each.message}" for each in problems) or None,
        models=list(service.catalogue.models),
        indexes=list(service.catalogue.indexes),
        problems=[*problems, *notes],
    )
    return JSONResponse(report.model_dump(exclude_none=True), 503 if problems else 200)
