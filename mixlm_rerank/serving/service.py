"""The state that all routes share: the models and indexes served now, and the queue in front of the ranker."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
from starlette.requests import Request

from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.ranking import verified
from mixlm_rerank.serving.batching import Batcher
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.guard import Limits, unless_gone
from mixlm_rerank.serving.metrics import Metrics
from mixlm_rerank.serving.rerank import Plan, plan, plan_in_full
from mixlm_rerank.serving.schemas import RerankRequest
from mixlm_rerank.types import ScoredDoc

__all__ = ["Service", "Timings"]

TOLERANCE = 1e-3  # in log-odds, between the known answers now and when the model was loaded
LOOK_SECONDS = 2.0  # /health needs no API key, and known answers take the ranker's time

_log = logging.getLogger(__name__)


class Timings(dict[str, float]):
    """Milliseconds of each stage of a request; stages follow one another."""

    def __init__(self) -> None:
        super().__init__()
        self._since = time.perf_counter()

    def ended(self, stage: str) -> None:
        now = time.perf_counter()
        self[stage], self._since = round(1e3 * (now - self._since), 3), now


class Service:
    """Models, indexes and queue of one server process.

    Args:
        opened: opens models and indexes; called again on SIGHUP.

    Attributes:
        catalogue: the models and indexes that are served now.
        changed: models whose known answers, when last checked, differed from those at load time.
        not_reloaded: why the last reload failed; empty if it succeeded.
    """

    def __init__(self, opened: Callable[[], Catalogue], limits: Limits) -> None:
        self._open, self.catalogue, self.limits = opened, opened(), limits
        self.changed: list[str] = []
        self.not_reloaded = ""
        self.metrics = Metrics()
        self.batcher = Batcher(limits, self.metrics)
        self._known: dict[str, list[float]] = {}  # known answers by model
        self._looking, self._look_again = asyncio.Lock(), 0.0
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the queue, compute known answers, handle SIGHUP (Python allows that only in the main thread)."""
        self.batcher.start()
        await self._serve(self.catalogue)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_soon)

    async def close(self) -> None:
        """Answer the requests in the queue and refuse new ones."""
        for reload in self._reloads:
            reload.cancel()
        await self.batcher.close()

    async def rank(self, asked: RerankRequest, request: Request) -> tuple[Plan, list[ScoredDoc], Timings]:
        """Rank the documents of a request within its deadline; stop if its client disconnects."""
        timings, catalogue = Timings(), self.catalogue  # a reload may replace it
        with self.metrics.stage("prepare"):
            made = await asyncio.to_thread(plan, asked, catalogue, self.limits.tokens)
        timings.ended("prepare")
        request.state.model, request.state.index = made.model, made.index or ""
        ranking = self.batcher.rerank(made, request.state.deadline - time.monotonic())
        docs: list[ScoredDoc] = await unless_gone(request.receive, ranking)
        timings.ended("rank")
        if made.in_full is not None:
            docs = await self._verified(made, docs, asked, catalogue, request)
            timings.ended("verify")
        self.metrics.ranked(docs, made.model, made.index or "")
        return made, docs, timings

    async def _verified(
        self, made: Plan, docs: list[ScoredDoc], asked: RerankRequest, catalogue: Catalogue, request: Request
    ) -> list[ScoredDoc]:
        """The ranking with its best documents read in full and reordered."""
        best = [doc for doc in docs[: asked.verify_top] if not doc.missing]
        if not best:
            return docs
        stage = catalogue.first_stages.get(made.index or "")
        found = {} if stage is None else await stage.texts([doc.docid for doc in best if doc.text is None])
        texts = {docid: catalogue.cut(made.model, text, asked.max_tokens_per_doc) for docid, text in found.items()}
        second = plan_in_full(made, best, texts, self.limits.tokens)
        reading = self.batcher.rerank(second, request.state.deadline - time.monotonic())
        read = second.documents.placed(await unless_gone(request.receive, reading))
        return verified(docs, {best[place]: doc.score for place, doc in read if not doc.missing})

    async def look(self) -> None:
        """Update ``changed``, at most every few seconds."""
        async with self._looking:
            if time.monotonic() < self._look_again:
                return
            catalogue, known = self.catalogue, self._known
            now = await self._answers(catalogue)
            if catalogue is self.catalogue:
                self.changed = [name for name in now if not np.allclose(now[name], known[name], 0, TOLERANCE)]
            self._look_again = time.monotonic() + LOOK_SECONDS

    async def reload(self) -> None:
        """Load models and indexes anew, then switch to them. If anything fails, the old ones stay.

        Running requests finish with the models and indexes that they began with.
        """
        async with self._reloading:
            try:
                if any(model.device.type != "cpu" for model in self.catalogue.models.values()):
                    raise InputError("compiling would hold up a GPU: start another server, then stop this one")
                catalogue = await asyncio.to_thread(self._open)
                gc.unfreeze()  # so that the old models and indexes can be freed
                await self._serve(catalogue)
                self.not_reloaded = ""
                _log.info("reloaded: models %s; indexes %s", list(catalogue.models), list(catalogue.indexes))
            except (MixLMError, OSError) as error:
                self.not_reloaded = str(error)
                _log.error("not reloaded: %s", error)
            except Exception:
                self.not_reloaded = "internal error; the server's log has it"
                _log.exception("not reloaded")

    def _reload_soon(self) -> None:
        task = asyncio.create_task(self.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _serve(self, catalogue: Catalogue) -> None:
        known = await self._answers(catalogue)
        catalogue.stage = self.metrics.stage
        self.catalogue, self._known, self.changed = catalogue, known, []
        gc.collect()
        gc.freeze()  # loaded objects stay: the garbage collector need not scan them again and again

    async def _answers(self, catalogue: Catalogue) -> dict[str, list[float]]:
        alone = self.batcher.alone
        return {name: await alone(model.known_answers) for name, model in catalogue.models.items()}
