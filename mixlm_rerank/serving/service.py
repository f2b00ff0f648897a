"""What all routes share: the models and indexes that are served now, and the queue in front of the ranker."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable
from functools import partial

from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.model.known_answer import known_answers
from mixlm_rerank.serving.batching import Batcher
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.guard import Limits
from mixlm_rerank.serving.metrics import Metrics

__all__ = ["Service"]

MOST_BATCH_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Service:
    """One process of a server.

    Args:
        reopen: opens the same models and indexes anew, for SIGHUP; ``None``: nothing is reloaded.

    Attributes:
        catalogue: what is served now.
        known: by model, the known answers that it gave when it was loaded.
        not_reloaded: why the last reload failed; empty if it did not.
    """

    def __init__(self, catalogue: Catalogue, limits: Limits, reopen: Callable[[], Catalogue] | None = None) -> None:
        self.catalogue = catalogue
        self.limits = limits
        self.known: dict[str, list[float]] = {}
        self.not_reloaded = ""
        self.metrics = Metrics()
        batch_seconds = min(MOST_BATCH_SECONDS, limits.seconds / 4)
        self.batcher = Batcher(
            metrics=self.metrics, waiting=limits.waiting, deadline=limits.seconds, seconds=batch_seconds
        )
        self._reopen = reopen
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Signals arrive in the main thread alone, and Windows has no SIGHUP."""
        self.batcher.start()
        await self._serve(self.catalogue)
        if self._reopen and hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload_soon)

    async def close(self) -> None:
        """Answer what is in the queue, and refuse what comes later."""
        for reload in self._reloads:
            reload.cancel()
        await self.batcher.close()

    async def reload(self) -> None:
        """Load everything anew, then serve that. If anything fails, what is served stays.

        Requests that are under way end with what they began with.
        """
        async with self._reloading:
            try:
                if any(model.device.type != "cpu" for model in self.catalogue.models.values()):
                    raise InputError("compiling would hold up a GPU: start another server, then stop this one")
                assert self._reopen is not None
                catalogue = await asyncio.to_thread(self._reopen)
                gc.unfreeze()  # what was served until now may go
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
        known = {
            name: await self.batcher.alone(partial(known_answers, model)) for name, model in catalogue.models.items()
        }
        catalogue.stage = self.metrics.stage
        self.catalogue, self.known = catalogue, known
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look at it again and again
