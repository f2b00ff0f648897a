"""What is wrong with a server, part by part: for probes, and for those who are called when a probe fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.serving.service import Service

__all__ = ["add_probes"]

DOCID = "is this index readable?"  # it need not be there


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


def add_probes(app: FastAPI, service: Service) -> None:
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
    """What a restart mends."""
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
