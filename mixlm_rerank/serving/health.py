"""What is wrong with a server, part by part: for probes, and for those who are called when a probe fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from fastapi.responses import JSONResponse

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.model.known_answer import known_answers
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.schemas import Problem, Report
from mixlm_rerank.serving.service import Service

__all__ = ["Health"]

TOLERANCE = 1e-3  # log-odds, between the known answers when a model was loaded and now
LOOK_SECONDS = 2.0  # anybody may ask, and known answers take the ranker's time
DOCID = "is this index readable?"  # it need not be there


class Health:
    """Examines a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._looking = asyncio.Lock()
        self._look_again = 0.0
        self._changed: tuple[Catalogue | None, list[Problem]] = None, []  # as last found, and in what

    async def process(self) -> JSONResponse:
        """Reports what a restart mends: a ranker that hangs, a model whose answers have changed."""
        found = self._stuck()
        if not found:
            async with self._looking:
                if time.monotonic() >= self._look_again:
                    self._changed = await self._compared()
                    self._look_again = time.monotonic() + LOOK_SECONDS
            found = self._known_changes()
        return self._report("ok", found)

    async def requests(self) -> JSONResponse:
        """Reports all that keeps requests from being answered; and, without failing, a reload that did not work."""
        found = self._stuck() + self._known_changes()
        for name, store in self._service.catalogue.indexes.items():
            try:
                await asyncio.to_thread(store.fetch, [DOCID], 1)
            except MixLMError as error:
                found.append(Problem(part=f"index {name}", message=str(error)))
        failed = self._service.not_reloaded
        old = [Problem(part="reload", message=f"{failed} (what was loaded before is served)")] if failed else []
        return self._report("ready", found, old)

    def _stuck(self) -> list[Problem]:
        if self._service.batcher.alive:
            return []
        seconds = self._service.limits.seconds
        return [Problem(part="ranker", message=f"no batch has returned for over {seconds:g} s: restart the server")]

    def _known_changes(self) -> list[Problem]:
        catalogue, problems = self._changed
        return [*problems] if catalogue is self._service.catalogue else []

    async def _compared(self) -> tuple[Catalogue, list[Problem]]:
        catalogue, known = self._service.catalogue, self._service.known
        problems: list[Problem] = []
        for name, model in catalogue.models.items():
            found = await self._service.batcher.alone(partial(known_answers, model))
            if not all(abs(now - then) <= TOLERANCE for now, then in zip(found, known[name], strict=True)):
                message = "it no longer gives its known answer: its weights have changed in memory; restart the server"
                problems.append(Problem(part=f"model {name}", message=message))
        return catalogue, problems

    def _report(self, good: str, problems: Sequence[Problem], notes: Sequence[Problem] = ()) -> JSONResponse:
        report = Report(
            status="failing" if problems else good,
            message="; ".join(f"{each.part}: {each.message}" for each in problems) or None,
            models=list(self._service.catalogue.models),
            indexes=list(self._service.catalogue.indexes),
            problems=[*problems, *notes],
        )
        return JSONResponse(report.model_dump(exclude_none=True), 503 if problems else 200)
