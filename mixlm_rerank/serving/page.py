"""The page at /, and the routes that it calls: BM25 and MixLM over the same hits, side by side."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from mixlm_rerank.model.template import has_content
from mixlm_rerank.serving.schemas import Failure, RequestFailed, RerankRequest
from mixlm_rerank.serving.service import Service, Timings
from mixlm_rerank.types import ScoredDoc

__all__ = ["add_page"]

# The page loads nothing from other hosts and may send nothing to them.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
SHOWN = 10
SNIPPET = 300  # characters

Ranking = list[tuple[str, float | None]]


class Found(BaseModel):
    """One line of a ranking. ``score``: None if the index lacks the document. ``was``: its rank in the first stage."""

    docid: str
    score: float | None
    text: str
    was: int


class SearchResponse(BaseModel):
    """Both rankings of the same hits, and how long each took."""

    hits: int
    first_stage: list[Found]
    reranked: list[Found]
    timings_ms: dict[str, float]


def add_page(app: FastAPI, service: Service) -> None:
    """The routes /, /searchable and /search."""
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
        stages = service.catalogue.first_stages
        name = index or next(iter(stages), "")
        if name not in stages:
            raise RequestFailed(404, f"no index {name!r} with known texts; there are: {', '.join(stages) or 'none'}")
        if not has_content(q):
            raise RequestFailed(400, "q is empty")
        timings = Timings()
        candidates = await stages[name].search(q, hits)
        timings.ended("first_stage")
        docs: list[ScoredDoc] = []
        if candidates:
            asked = RerankRequest(query=q, document_ids=[hit.docid for hit in candidates], index=name)
            _, docs, _ = await service.rank(asked, request)
        timings.ended("rerank")
        ranks = {hit.docid: rank for rank, hit in enumerate(candidates, 1)}
        before: Ranking = [(hit.docid, hit.score) for hit in candidates[:SHOWN]]
        after: Ranking = [(doc.docid, None if doc.missing else doc.score) for doc in docs[:SHOWN]]
        texts = await stages[name].texts(list(dict([*before, *after])))
        timings.ended("texts")

        def found(ranking: Ranking) -> list[Found]:
            return [
                Found(docid=docid, score=score, text=_snippet(texts.get(docid, "")), was=ranks[docid])
                for docid, score in ranking
            ]

        return SearchResponse(
            hits=len(candidates), first_stage=found(before), reranked=found(after), timings_ms=timings
        )


def _snippet(text: str) -> str:
    if len(text) <= SNIPPET:
        return text
    return text[:SNIPPET].rsplit(" ", 1)[0] + " …"
