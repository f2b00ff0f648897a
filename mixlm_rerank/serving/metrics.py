"""The server's metrics for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from mixlm_rerank.types import ScoredDoc

__all__ = ["SHARED_FOLDER", "Metrics"]

# prometheus_client reads this environment variable when it is imported. It names a folder in which all workers of a
# server keep their counters, so that each worker reports those of all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """Counters of one server, in a registry of its own.

    The labels ``model`` and ``index`` are empty where a request was refused before it named any, or has no index.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, buckets=SECONDS, registry=self.registry)
        names = ["model", "index"]
        self.requests = counter("mixlm_requests", "Requests answered.", ["path", "status", *names])
        self.seconds = histogram("mixlm_request_seconds", "From request to answer.", ["path", *names])
        self.documents = counter("mixlm_documents", "Documents ranked.", names)
        lacking = "Documents that were not in the index and not encoded."
        self.missing = counter("mixlm_missing_documents", lacking, names)
        self.batch = histogram("mixlm_batch_requests", "Requests scored together.", buckets=SIZES)
        self.candidates = histogram("mixlm_batch_candidates", "Documents scored together.", buckets=SIZES)
        self.scoring = histogram("mixlm_batch_seconds", "Scoring of a batch.")
        stages = (
            "Of a request: prepare (texts, limits), queue. Of a batch: index (reading), encode (texts), score, verify."
        )
        self.stages = histogram("mixlm_stage_seconds", stages, ["stage"])
        self.waiting = Gauge(
            "mixlm_waiting_candidates", "Documents in the queue.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.refused = counter("mixlm_refused", "Requests refused because the server was full (429).")

    def page(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        registry = self.registry
        if SHARED_FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Observe how long the block takes."""
        return self.stages.labels(name).time()

    def answered(self, path: str, status: int, seconds: float, state: Mapping[str, Any]) -> None:
        """Count an answered request. ``state``: the request's state."""
        names = state.get("model", ""), state.get("index", "")
        self.requests.labels(path, str(status), *names).inc()
        self.seconds.labels(path, *names).observe(seconds)
        if status == 429:
            self.refused.inc()

    def ranked(self, docs: Sequence[ScoredDoc], model: str, index: str) -> None:
        """Count the documents of a ranked request."""
        self.documents.labels(model, index).inc(len(docs))
        self.missing.labels(model, index).inc(sum(doc.missing for doc in docs))
