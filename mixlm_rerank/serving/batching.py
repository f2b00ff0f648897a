"""Concurrent requests, scored together: a bounded queue, and one thread that takes what waits.

There is no timer: while one batch is scored the next one gathers. A server at rest answers at once, a busy one fills
its batches by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from mixlm_rerank.errors import IndexDamaged, IndexMismatch, StoreUnavailable
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.serving.failures import RequestFailed
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Batcher"]

T = TypeVar("T")

MEASURED = 64  # candidates from which on a batch tells how fast the ranker is; a small one tells what a call costs
SMOOTHING = 0.2


@dataclass(eq=False)
class _Job:
    reranker: Reranker
    query: str
    candidates: Sequence[Candidate]
    answer: asyncio.Future[list[ScoredDoc]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Reranks for many callers at once.

    Args:
        largest: candidates of a batch; a request with more is a batch of its own.
        waiting: candidates that may wait; more are refused.
        seconds: of what waits, about so much is taken at once: all in a batch are answered when its last one is. A
            request that finds others waiting and has no more time than that is refused.
        observe: told of every batch: requests, candidates, seconds.
    """

    def __init__(
        self,
        *,
        largest: int = 2048,
        waiting: int = 20_000,
        seconds: float = 0.5,
        observe: Callable[[int, int, float], object] = lambda requests, candidates, seconds: None,
    ) -> None:
        self._largest, self._limit, self._batch_seconds, self._observe = largest, waiting, seconds, observe
        self._jobs: deque[_Job] = deque()
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ranker")
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._rate: float | None = None  # candidates a second, once it is known
        self.waiting = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    @property
    def alive(self) -> bool:
        """Whether what waits will be ranked."""
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        """Finish what was taken, and take no more."""
        self._closing = True
        self._work.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def rerank(
        self, reranker: Reranker, query: str, candidates: Sequence[Candidate], seconds: float
    ) -> list[ScoredDoc]:
        """As :meth:`Reranker.rerank`, within ``seconds``. What the ranker has begun is finished all the same.

        Raises RequestFailed if the queue is full or the deadline is not kept, and what the reranker raises.
        """
        if self._closing:
            raise RequestFailed(503, "the server is shutting down")
        full = self.waiting + len(candidates) > self._limit
        wait, own = self._seconds(self.waiting), self._seconds(len(candidates))
        if self.waiting and (full or wait + max(own, self._batch_seconds) > seconds):
            raise RequestFailed(429, "the queue is full: try again later", retry_after=max(1, round(wait)))
        job = _Job(reranker, query, candidates)
        self._jobs.append(job)
        self.waiting += len(candidates)
        self._work.set()
        try:
            return await asyncio.wait_for(job.answer, seconds)
        except TimeoutError:
            raise RequestFailed(504, "the request took longer than its deadline") from None

    async def alone(self, work: Callable[[], T]) -> T:
        """Other work with a model, in the ranker's thread, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            while self._jobs:
                batch = self._next_batch()
                if batch:
                    started = time.monotonic()
                    answers = await loop.run_in_executor(self._thread, _rerank, batch)
                    self._done(batch, answers, time.monotonic() - started)
            if self._closing:
                return

    def _seconds(self, candidates: int) -> float:
        """About the time that they take; 0 until it is known."""
        return candidates / self._rate if self._rate else 0.0

    def _next_batch(self) -> list[_Job]:
        """The oldest job, and those behind it that are for the same reranker, as many as fit."""
        first = self._jobs[0]
        batch: list[_Job] = []
        held = 0
        rest: deque[_Job] = deque()
        for job in self._jobs:
            size = held + len(job.candidates)
            fits = not batch or (size <= self._largest and self._seconds(size) <= self._batch_seconds)
            if job.answer.cancelled():  # its deadline is over, or its client has gone
                self.waiting -= len(job.candidates)
            elif job.reranker is first.reranker and fits:
                batch.append(job)
                held += len(job.candidates)
            else:
                rest.append(job)
        self._jobs = rest
        return batch

    def _done(self, batch: Sequence[_Job], answers: Sequence[list[ScoredDoc] | Exception], seconds: float) -> None:
        candidates = sum(len(job.candidates) for job in batch)
        self.waiting -= candidates
        if candidates >= MEASURED:
            rate = candidates / max(seconds, 1e-6)
            self._rate = rate if self._rate is None else self._rate + SMOOTHING * (rate - self._rate)
        self._observe(len(batch), candidates, seconds)
        for job, answer in zip(batch, answers, strict=True):
            if job.answer.cancelled():
                continue
            if isinstance(answer, Exception):
                job.answer.set_exception(answer)
            else:
                job.answer.set_result(answer)


def _rerank(batch: Sequence[_Job]) -> list[list[ScoredDoc] | Exception]:
    """An answer for each job; where one spoils the batch, each is asked alone. Raises nothing."""
    reranker = batch[0].reranker
    try:
        ranked = reranker.rerank_batch(
            {str(place): job.query for place, job in enumerate(batch)},
            {str(place): job.candidates for place, job in enumerate(batch)},
        )
        return [ranked[str(place)] for place in range(len(batch))]
    except (StoreUnavailable, IndexDamaged, IndexMismatch) as error:  # of all, not of one
        return [error] * len(batch)
    except BaseException as error:  # a tokenizer that panics raises no Exception
        if len(batch) == 1:
            return [error if isinstance(error, Exception) else RuntimeError(repr(error))]
        return [_rerank([job])[0] for job in batch]
