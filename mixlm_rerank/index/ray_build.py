"""Build a token index on many workers: Ray actors encode and write Parquet shards, which are then imported locally.

The corpus is cut into shards of documents. Each core or GPU has an actor, which encodes one shard at a time and writes
its tokens. A shard's name depends only on its documents and the encoder, so an interrupted build finds the finished
shards, whichever worker wrote them, and writing a shard twice gives the same file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from ..errors import InputError, MixLMError, optional_import
from ..progress import progress_bar
from ..types import Document, Model
from .encoding import Encoder
from .exchange import import_begun, import_index
from .manifest import Manifest, key_of
from .plan import Job, docid_hash, plan
from .shards import Shards

__all__ = ["build_on_ray"]

SHARD_DOCUMENTS = 1024  # an interruption may cost each worker one shard
# ``.documents``: files of earlier versions, which kept a shard's documents beside its tokens during a build
OWN = re.compile(r"part-\d{6}-[0-9a-f]{16}\.parquet(\.documents)?(\.\w+\.part)?|index\.json(\.\w+\.part)?")


def build_on_ray(job: Job, shards_url: str | None, workers: int | None) -> None:
    """Build the index of ``job`` on the workers of a Ray cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with optional_import("--engine ray needs Ray", "ray"):
        import ray
        import ray.util
    manifest, model, folder = job.manifest, job.model, job.folder
    if not hasattr(model, "to"):
        raise InputError("Ray's workers encode in PyTorch: give the MixLM that this model was exported from")
    import_begun(folder, manifest, 0)  # refuse before the long work
    total = plan(job, Encoder(model, manifest))
    shards = Shards(shards_url or f"{folder.absolute()}.shards")
    shards.prepare(OWN)
    counts: dict[str, int] = {}  # documents of each shard, in the order of the corpus
    with progress_bar(total, "encode", "documents", enabled=job.progress) as bar:

        def waiting() -> Iterator[tuple[str, list[Document]]]:
            for name, documents in _named(job.stream(), manifest):
                counts[name] = len(documents)
                if shards.holds(name):
                    bar.update(len(documents))
                else:
                    yield name, documents

        for name in _encoded(ray, model, shards, waiting(), manifest, workers):
            bar.update(counts[name])
    if not counts:
        raise InputError("the corpus holds no documents")
    shards.clear(OWN, kept=counts)  # remains of killed builds, or of another state of the corpus
    shards.finish(replace(manifest, complete=True), list(counts), sum(counts.values()))
    import_index(shards.url, folder, progress=job.progress)
    if shards_url is None:
        shards.clear(OWN)


def _named(stream: Iterator[Document], manifest: Manifest) -> Iterator[tuple[str, list[Document]]]:
    """Name and documents of each shard. Raises InputError for a docid that occurs twice."""
    seen: set[int] = set()  # 64-bit hashes of docids
    number = 0
    while window := list(islice(stream, SHARD_DOCUMENTS)):
        digest = hashlib.blake2b(manifest.kind.encode(), digest_size=8)
        for document in window:
            if (mark := docid_hash(document.docid)) in seen:
                raise InputError(f"duplicate docid {document.docid!r} in the corpus")
            seen.add(mark)
            key = key_of(document.docid)
            digest.update(len(key).to_bytes(2, "big") + key + manifest.content_hash(document))
        yield f"part-{number:06d}-{digest.hexdigest()}.parquet", window
        number += 1


def _encoded(
    ray: Any,
    model: Model,
    shards: Shards,
    waiting: Iterator[tuple[str, list[Document]]],
    manifest: Manifest,
    workers: int | None,
) -> Iterator[str]:
    """Yield the names of shards as they are finished. Raises InputError if a worker fails."""
    first = next(waiting, None)
    if first is None:
        return
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        resources, kept = ray.cluster_resources(), ray.put(model)
        gpus = int(resources.get("GPU", 0))
        # Ray restarts a worker that dies, and gives it its shard again
        options = {"num_cpus": 0 if gpus else 1, "num_gpus": 1 if gpus else 0}
        actor = ray.remote(**options, max_restarts=-1, max_task_retries=-1)(_Worker)
        pool, left = ray.util.ActorPool([]), workers or gpus or int(resources["CPU"])
        for work in chain([first], waiting):
            if not pool.has_free() and left:
                pool.push(actor.remote(kept, shards.url, manifest))
                left -= 1
            elif not pool.has_free():
                yield _done(*pool.get_next_unordered())
            pool.submit(lambda free, own: free.encode.remote(*own), work)
        while pool.has_next():
            yield _done(*pool.get_next_unordered())
    except ray.exceptions.RayError as error:
        raise InputError(f"Ray failed: {error}; the shards that are done lie in {shards.url}") from error
    finally:
        if started:
            ray.shutdown()


def _done(name: str, error: str) -> str:
    if error:
        raise InputError(f"{error} (shard {name}; those that are done are kept)")
    return name


class _Worker:
    """The actor: encodes the documents of a shard and writes their tokens."""

    def __init__(self, model: Any, url: str, manifest: Manifest) -> None:
        import torch

        self.encoder = Encoder(model.to("cuda" if torch.cuda.is_available() else "cpu"), manifest)
        self.shards = Shards(url)

    def encode(self, name: str, documents: Sequence[Document]) -> tuple[str, str]:
        """Returns the name and an error message, empty on success; Ray would wrap an exception."""
        try:
            if not self.shards.holds(name):  # else this is a retry: only the answer was lost
                read = list(self.encoder.reader.readings(documents))
                self.shards.write(name, self.encoder.packed(read), self.encoder.manifest)
        except (MixLMError, OSError) as error:
            return name, str(error)
        return name, ""
