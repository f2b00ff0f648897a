"""The application: routes, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.known_answer import known_answers
from mixlm_rerank.model.template import visible
from mixlm_rerank.serving.batching import Batcher
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.failures import STATUS, RequestFailed, status_of
from mixlm_rerank.serving.guard import ASSETS, Guard, Limits, unless_gone
from mixlm_rerank.serving.metrics import Metrics
from mixlm_rerank.serving.rerank import Plan, plan, respond
from mixlm_rerank.serving.schemas import (
    CONTRACTS,
    AnyRequest,
    BatchRequest,
    BatchResponse,
    Failure,
    RerankRequest,
    RerankResponse,
    TeiRequest,
    TeiResult,
)
from mixlm_rerank.serving.search import FirstStage, SearchResponse, side_by_side
from mixlm_rerank.types import ScoredDoc

__all__ = ["Limits", "create_app"]

Ranked = Callable[[Request, Plan], Awaitable[list[ScoredDoc]]]

DOCUMENTED = ("/v2/rerank", "/v2/rerank/batch")
RERANK_PATHS = (*DOCUMENTED, "/v1/rerank", "/rerank")  # with those of older clients and other servers
# The page needs nothing from elsewhere, and may ask nothing elsewhere.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)
TOLERANCE = 1e-3  # log-odds, between the known answers at start and now
MOST_BATCH_SECONDS = 0.5
HEALTH_SECONDS = 2.0  # anybody may ask, and it takes the ranker's time


def create_app(
    catalogue: Catalogue,
    limits: Limits = Limits(),
    api_key: str | None = None,
    first_stages: Mapping[str, FirstStage] | None = None,
) -> FastAPI:
    """The server's application over loaded models and open indexes.

    ``first_stages``: by the name of the token index that holds the same documents; for the page.
    """
    metrics = Metrics()
    state: dict[str, Any] = {"ready": False}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batch_seconds = min(MOST_BATCH_SECONDS, limits.seconds / 4)
        state["batcher"] = Batcher(
            waiting=limits.waiting, deadline=limits.seconds, seconds=batch_seconds, observe=metrics.batched
        )
        state["batcher"].start()
        state["known"] = {
            name: await state["batcher"].alone(partial(known_answers, model))
            for name, model in catalogue.models.items()
        }
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look at it again and again
        state["ready"] = True
        yield
        state["ready"] = False
        await state["batcher"].close()

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
    app.add_middleware(Guard, metrics=metrics, limits=limits, key=api_key, paths=paths)
    _answer_failures(app)

    async def ranked(request: Request, made: Plan) -> list[ScoredDoc]:
        """Within the request's deadline, and only while its client waits."""
        request.state.model, request.state.index = made.model, made.index or ""
        left = request.state.deadline - time.monotonic()
        ranking = state["batcher"].rerank(made.reranker, made.query, made.documents.candidates, made.costs, left)
        docs: list[ScoredDoc] = await unless_gone(request.receive, ranking)
        metrics.ranked(docs, made.model, made.index or "")
        return docs

    async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
        """Rank documents for a query, best first."""
        if not state["ready"]:
            raise RequestFailed(503, "not ready yet", retry_after=1)
        started = time.perf_counter()
        made = await asyncio.to_thread(plan, body, catalogue, limits.tokens)
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

    looking = asyncio.Lock()

    async def changed(name: str, model: MixLM) -> bool:
        found = await state["batcher"].alone(partial(known_answers, model))
        return not all(abs(now - then) <= TOLERANCE for now, then in zip(found, state["known"][name], strict=True))

    @app.get("/health")
    async def health() -> JSONResponse:
        """Does every model give the answer that it gave at the start? Looked at every few seconds at most."""
        if "known" not in state:
            raise RequestFailed(503, "not ready yet")
        _check_alive(state, limits)
        async with looking:
            if time.monotonic() >= state.get("look again", 0.0):
                state["wrong"] = [name for name, model in catalogue.models.items() if await changed(name, model)]
                state["look again"] = time.monotonic() + HEALTH_SECONDS
        if state["wrong"]:
            raise RequestFailed(503, f"model {state['wrong'][0]!r} no longer gives its known answer: restart")
        return JSONResponse({"status": "ok", "models": list(catalogue.models), "indexes": list(catalogue.indexes)})

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Will a request be answered now?"""
        if not state["ready"]:
            raise RequestFailed(503, "not ready")
        _check_alive(state, limits)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """For Prometheus."""
        if "batcher" in state:
            metrics.waiting.set(state["batcher"].waiting)
        return PlainTextResponse(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4")

    _add_page(app, catalogue, first_stages or {}, limits, ranked)
    return app


def _check_alive(state: Mapping[str, Any], limits: Limits) -> None:
    """Raises RequestFailed."""
    if not state["batcher"].alive:
        raise RequestFailed(503, f"no batch has returned for over {limits.seconds:g} s: restart the server")


def _add_page(
    app: FastAPI, catalogue: Catalogue, first_stages: Mapping[str, FirstStage], limits: Limits, ranked: Ranked
) -> None:
    """The page at /, and what it asks for; ``ranked`` ranks what was planned."""
    page = (files("mixlm_rerank.serving") / "page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/searchable", include_in_schema=False)
    async def searchable() -> dict[str, list[str]]:
        return {"indexes": list(first_stages)}

    @app.get("/search", responses={404: {"model": Failure}, 400: {"model": Failure}})
    async def search(
        request: Request, q: str, index: str | None = None, hits: Annotated[int, Query(ge=1, le=10_000)] = 100
    ) -> SearchResponse:
        """BM25 and MixLM over an index whose texts are known."""
        name = index or next(iter(first_stages), "")
        if name not in first_stages:
            raise RequestFailed(
                404, f"no index {name!r} with known texts; there are: {', '.join(first_stages) or 'none'}"
            )
        if not visible(q):
            raise RequestFailed(400, "q is empty")
        started = time.perf_counter()
        candidates = await first_stages[name].search(q, hits)
        found = time.perf_counter()
        docs: list[ScoredDoc] = []
        if candidates:
            asked = RerankRequest(query=q, document_ids=[hit.docid for hit in candidates], index=name)
            docs = await ranked(request, await asyncio.to_thread(plan, asked, catalogue, limits.tokens))
        timings = {
            "first_stage": round(1e3 * (found - started), 2),
            "rerank": round(1e3 * (time.perf_counter() - found), 2),
        }
        return await side_by_side(candidates, docs, first_stages[name], timings)


def _answer_failures(app: FastAPI) -> None:
    """Every error is ``{"message": ...}``; those that are RequestFailed, the guard answers."""

    @app.exception_handler(MixLMError)
    async def refused(request: Request, error: MixLMError) -> JSONResponse:
        return _failure(status_of(error), str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", *CONTRACTS)) or "body"
        kind = request.headers.get("content-type", "application/json")
        if where == "body" and "json" not in kind:
            return _failure(400, f"the body came as {kind}: send JSON, with Content-Type: application/json")
        if first["type"] == "json_invalid":
            return _failure(400, f"the body is no valid JSON: {first['ctx']['error']}")
        return _failure(400 if first["type"] == "missing" else 422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        answer = _failure(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        answer.headers.update(error.headers or {})  # Allow, with 405
        return answer


class _Json(JSONResponse):
    """UTF-8; or JSON's escapes, where a docid or a text holds half a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _failure(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status)
