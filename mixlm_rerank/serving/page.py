"""The page at /, and what it asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse

from mixlm_rerank.model.template import visible
from mixlm_rerank.serving.failures import RequestFailed
from mixlm_rerank.serving.rerank import Plan, plan
from mixlm_rerank.serving.schemas import Failure, RerankRequest
from mixlm_rerank.serving.search import SearchResponse, side_by_side
from mixlm_rerank.serving.service import Service
from mixlm_rerank.types import ScoredDoc

__all__ = ["add_page"]

# The page needs nothing from elsewhere, and may ask nothing elsewhere.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"


def add_page(app: FastAPI, service: Service, ranked: Callable[[Request, Plan], Awaitable[list[ScoredDoc]]]) -> None:
    """``ranked`` ranks what was planned."""
    page = (files("mixlm_rerank.serving") / "page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/searchable", include_in_schema=False)
    async def searchable() -> dict[str, list[str]]:
        return {"indexes": list(service.catalogue.first_stages)}

    @app.get("/search", responses={404: {"model": Failure}, 400: {"model": Failure}})
    async def search(
        request: Request, q: str, index: str | None = None, hits: Annotated[int, Query(ge=1, le=10_000)] = 100
    ) -> SearchResponse:
        """BM25 and MixLM over an index whose texts are known."""
        catalogue = service.catalogue
        stages = catalogue.first_stages
        name = index or next(iter(stages), "")
        if name not in stages:
            raise RequestFailed(404, f"no index {name!r} with known texts; there are: {', '.join(stages) or 'none'}")
        if not visible(q):
            raise RequestFailed(400, "q is empty")
        started = time.perf_counter()
        candidates = await stages[name].search(q, hits)
        found = time.perf_counter()
        docs: list[ScoredDoc] = []
        if candidates:
            asked = RerankRequest(query=q, document_ids=[hit.docid for hit in candidates], index=name)
            docs = await ranked(request, await asyncio.to_thread(plan, asked, catalogue, service.limits.tokens))
        timings = {
            "first_stage": round(1e3 * (found - started), 2),
            "rerank": round(1e3 * (time.perf_counter() - found), 2),
        }
        return await side_by_side(candidates, docs, stages[name], timings)
