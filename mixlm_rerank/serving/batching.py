"""Concurrent requests, ranked together: a bounded queue, and one thread that ranks a batch at a time.

There is no timer: while one batch is ranked, the next one fills. So an idle server answers immediately, and under load
batches are full. A request larger than a batch is ranked in pieces, which alternate with batches of smaller requests.
A cancelled request leaves the queue.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TypeVar

from mixlm_rerank.errors import IndexDamaged, IndexMismatch, StoreUnavailable
from mixlm_rerank.model.running import positions_per_forward
from mixlm_rerank.ranking import merged
from mixlm_rerank.serving.guard import Limits
from mixlm_rerank.serving.metrics import Metrics
from mixlm_rerank.serving.rerank import Plan
from mixlm_rerank.serving.schemas import RequestFailed
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["Batcher"]

T = TypeVar("T")

# Token positions per batch. On a CPU, more are no faster and delay all requests; fewer do not fill a forward pass.
LARGEST_ON_CPU = 4096
SMALLEST = 1024
MOST_BATCH_SECONDS = 0.5
MEASURED = 512  # positions that a batch needs to measure the ranker's speed; smaller ones measure a call's overhead
SMOOTHING = 0.2


@dataclass(eq=False)
class _Job:
    """A request in the queue."""

    plan: Plan
    answer: asyncio.Future[list[ScoredDoc]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    part: Sequence[Candidate] = ()  # candidates in the current batch
    docs: list[ScoredDoc] = field(default_factory=list)  # ranked so far, batch after batch
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._ends = list(accumulate(self.plan.costs, initial=0))

    @property
    def had(self) -> int:
        """Token positions ranked so far."""
        return self._ends[len(self.docs)]

    @property
    def left(self) -> int:
        """Token positions still to be ranked."""
        return self._ends[-1] - self.had

    def take(self, room: int) -> None:
        """Choose the job's part of a batch: the next candidates that fit into ``room`` positions, at least one."""
        begin = len(self.docs)
        end = max(begin + 1, bisect_right(self._ends, self.had + room) - 1)
        self.part = self.plan.documents.candidates[begin:end]


class Batcher:
    """Reranks for many concurrent callers. Records every batch and the length of the queue in ``metrics``."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._batch_seconds = min(MOST_BATCH_SECONDS, limits.seconds / 4)  # target duration of a batch
        self._jobs: list[_Job] = []
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ranker")
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        # seconds per token position of texts that are read in full, and of others; 0 until measured
        self._pace = {True: 0.0, False: 0.0}
        self._large_last = False
        self._since: float | None = None  # when the thread began its current work

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    @property
    def alive(self) -> bool:
        """Whether the queue moves: no batch has run for longer than the deadline."""
        stuck = self._since is not None and time.monotonic() - self._since > self._limits.seconds
        return self._task is not None and not self._task.done() and not stuck

    @property
    def waiting(self) -> int:
        """Number of candidates, of all requests, that are not ranked yet."""
        return sum(len(job.plan.costs) - len(job.docs) for job in self._jobs)

    async def close(self) -> None:
        """Refuse new requests and finish those in the queue."""
        self._closing = True
        self._work.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def rerank(self, plan: Plan, seconds: float) -> list[ScoredDoc]:
        """The plan's candidates, ranked. May be cancelled; a running batch is not interrupted.

        Raises RequestFailed if the queue is full or would take longer than ``seconds`` (not for a request's second
        plan, which reads in full: it was admitted), and the reranker's errors.
        """
        if self._closing:
            raise RequestFailed(503, "the server is shutting down")
        own = sum(plan.costs)
        most = max(own, self._room(plan))  # larger requests take turns with this one
        wait = sum(self._pace[job.plan.reads_in_full] * min(job.left, most) for job in self._jobs)
        if (waiting := self.waiting) and not plan.reads_in_full:
            retry = {"Retry-After": str(max(1, round(wait)))}
            if waiting + len(plan.costs) > self._limits.waiting:
                full = f"{waiting:,} documents wait, and at most {self._limits.waiting:,} may"
                raise RequestFailed(429, f"the queue is full ({full}): try again later", retry)
            if wait + max(self._pace[False] * own, self._batch_seconds) > seconds:
                raise RequestFailed(429, "the queue is too long for the deadline: try again later", retry)
        job = _Job(plan)
        self._jobs.append(job)
        self._metrics.waiting.set(self.waiting)
        self._work.set()
        try:
            return await job.answer
        finally:
            self._jobs.remove(job)
            self._metrics.waiting.set(self.waiting)

    async def alone(self, work: Callable[[], T]) -> T:
        """Run other work with a model in the ranker's thread, between two batches."""

        def tracked() -> T:
            self._since = time.monotonic()
            try:
                return work()
            finally:
                self._since = None

        return await asyncio.get_running_loop().run_in_executor(self._thread, tracked)

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while batch := self._next_batch():
                started = time.monotonic()
                for job in batch:
                    if not job.docs:
                        self._metrics.stages.labels("queue").observe(started - job.since)
                answers = await self.alone(partial(_rerank, batch))
                self._done(batch, answers, time.monotonic() - started)
            if self._closing:
                return

    def _room(self, plan: Plan) -> int:
        """Largest number of token positions in a batch."""
        pace, largest = (
            self._pace[plan.reads_in_full],
            positions_per_forward(plan.reranker.model.device, LARGEST_ON_CPU),
        )
        return min(max(int(self._batch_seconds / pace) if pace else 0, SMALLEST), largest)

    def _next_batch(self) -> list[_Job]:
        """Alternates between the oldest requests that fit whole (for one reranker) and a piece of a larger one."""
        jobs = [job for job in self._jobs if not job.answer.done()]
        small = [job for job in jobs if job.left <= self._room(job.plan)]
        large = [job for job in jobs if job.left > self._room(job.plan)]
        self._large_last = bool(large) and not (small and self._large_last)
        batch: list[_Job] = []
        if self._large_last:
            batch = [min(large, key=lambda job: job.had)]
        elif small:
            reranker = small[0].plan.reranker
            left = self._room(small[0].plan)
            for job in small:
                if job.plan.reranker is reranker and job.left <= left:
                    batch.append(job)
                    left -= job.left
        for job in batch:
            job.take(self._room(job.plan))
        return batch

    def _done(self, batch: Sequence[_Job], answers: Sequence[list[ScoredDoc] | Exception], seconds: float) -> None:
        positions = 0
        for job, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                if not job.answer.done():
                    job.answer.set_exception(answer)
                continue
            positions -= job.had
            job.docs += answer
            positions += job.had
            if not job.left and not job.answer.done():
                job.answer.set_result(merged(job.docs))
        if positions >= MEASURED:
            kind, pace = batch[0].plan.reads_in_full, max(seconds, 1e-6) / positions
            before = self._pace[kind]
            self._pace[kind] = before + SMOOTHING * (pace - before) if before else pace
        self._metrics.waiting.set(self.waiting)
        self._metrics.batch.observe(len(batch))
        self._metrics.candidates.observe(sum(len(job.part) for job in batch))
        self._metrics.scoring.observe(seconds)


def _rerank(batch: Sequence[_Job]) -> list[list[ScoredDoc] | Exception]:
    """An answer for each part. If the batch fails, parts are ranked singly, so only bad ones fail. Raises nothing."""
    try:
        ranked = batch[0].plan.reranker.rerank_batch(
            {str(place): job.plan.query for place, job in enumerate(batch)},
            {str(place): job.part for place, job in enumerate(batch)},
        )
        return [ranked[str(place)] for place in range(len(batch))]
    except (StoreUnavailable, IndexDamaged, IndexMismatch) as error:  # concern all jobs, not one
        return [error] * len(batch)
    except BaseException as error:  # a tokenizer's panic is not an Exception
        if len(batch) == 1:
            return [error if isinstance(error, Exception) else RuntimeError(repr(error))]
        return [_rerank([job])[0] for job in batch]
