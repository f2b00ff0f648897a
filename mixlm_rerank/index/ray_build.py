"""Build a token index on many workers: Ray Data encodes, Parquet shards carry, the local import writes.

The corpus is cut into shards of documents. An actor for each core or GPU reads one, encodes it, and writes one of
tokens. A shard's name follows from its documents and the encoder, so an interrupted build finds again what is done,
whichever worker did it, and a shard that is written twice is the same one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from ..errors import InputError, MixLMError, optional_import
from ..progress import progress_bar
from ..types import Document, Model
from .builder import Job
from .encoding import Encoder
from .entries import key_of
from .exchange import import_begun, import_index
from .manifest import Manifest
from .plan import docid_hash
from .shards import Shards

__all__ = ["build_on_ray"]

SHARD_DOCUMENTS = 1024  # what an interruption may cost each worker
OWN = re.compile(r"part-\d{6}-[0-9a-f]{16}\.parquet(\.documents)?(\.\w+\.part)?|index\.json(\.\w+\.part)?")


def build_on_ray(job: Job, shards_url: str | None, workers: int | None) -> None:
    """On the workers of a cluster."""
    ray, manifest, model, folder = _ray(), job.manifest(), job.model, job.folder
    if not hasattr(model, "to"):
        raise InputError("Ray's workers encode in PyTorch: give the MixLM that this model was exported from")
    import_begun(folder, manifest, 0)  # refuse before the long work
    job.plan(Encoder(model, manifest))
    shards = Shards(shards_url or f"{folder.absolute()}.shards")
    shards.prepare(OWN)
    counts, waiting = _staged(job.stream(), shards, manifest)
    with progress_bar(sum(counts.values()), "encode", "documents", enabled=job.progress) as bar:
        bar.update(sum(count for name, count in counts.items() if name not in waiting))
        for name in _encoded(ray, model, shards, waiting, manifest, workers):
            bar.update(counts[name])
    shards.clear(OWN, kept=counts)  # of builds that were killed, or of what was another corpus then
    shards.finish(replace(manifest, complete=True), list(counts), sum(counts.values()))
    import_index(shards.url, folder, progress=job.progress)
    if shards_url is None:
        shards.clear(OWN)


def _staged(stream: Iterator[Document], shards: Shards, manifest: Manifest) -> tuple[dict[str, int], list[str]]:
    """Put the documents where the workers find them. Returns how many each shard has, in order; those to be encoded.

    Raises InputError for a docid that occurs twice, or no documents.
    """
    counts: dict[str, int] = {}
    waiting: list[str] = []
    seen: set[int] = set()  # hashes: 64 bits a document
    while window := list(islice(stream, SHARD_DOCUMENTS)):
        for document in window:
            if (mark := docid_hash(document.docid)) in seen:
                raise InputError(f"duplicate docid {document.docid!r} in the corpus")
            seen.add(mark)
        name = f"part-{len(counts):06d}-{_digest(window, manifest)}.parquet"
        counts[name] = len(window)
        if not shards.holds(name):
            shards.write_documents(f"{name}.documents", window)
            waiting.append(name)
    if not counts:
        raise InputError("the corpus holds no documents")
    return counts, waiting


def _encoded(
    ray: Any, model: Model, shards: Shards, names: list[str], manifest: Manifest, workers: int | None
) -> Iterator[str]:
    """Names of shards as they are done. Raises InputError if a worker could not do its work."""
    if not names:
        return
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        ray.data.DataContext.get_current().enable_progress_bars = False
        encoded = ray.data.from_items([{"name": name} for name in names], override_num_blocks=len(names)).map_batches(
            _Encoder,
            fn_constructor_args=(ray.put(model), shards.url, manifest),
            compute=ray.data.ActorPoolStrategy(size=min(len(names), workers or gpus or int(resources["CPU"]))),
            batch_size=1,
            num_gpus=1 if gpus else None,
        )
        for row in encoded.iter_rows():
            if row["error"]:
                raise InputError(f"{row['error']} (shard {row['name']}; those that are done are kept)")
            yield str(row["name"])
    except ray.exceptions.RayError as error:
        raise InputError(f"Ray failed: {error}; the shards that are done lie in {shards.url}") from error
    finally:
        if started:
            ray.shutdown()


class _Encoder:
    """One worker: documents of a shard -> tokens of a shard."""

    def __init__(self, model: Any, url: str, manifest: Manifest) -> None:
        import ray
        import torch

        self.encoder = Encoder(ray.get(model).to("cuda" if torch.cuda.is_available() else "cpu"), manifest)
        self.shards = Shards(url)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "error": np.array([self._encode(name) for name in batch["name"].tolist()])}

    def _encode(self, name: str) -> str:
        """Returns what the caller should know if it cannot be done: Ray would wrap an exception beyond recognition."""
        if self.shards.holds(name):
            return ""  # a second try: only the answer was lost
        try:
            documents = self.shards.read_documents(f"{name}.documents")
            read = list(self.encoder.reader.readings(documents))
            self.shards.write(name, self.encoder.packed(read), self.encoder.manifest)
        except (MixLMError, OSError) as error:
            return str(error)
        return ""


def _digest(documents: list[Document], manifest: Manifest) -> str:
    found = hashlib.blake2b(manifest.kind.encode(), digest_size=8)
    for document in documents:
        key = key_of(document.docid)
        found.update(len(key).to_bytes(2, "big") + key + manifest.content_hash(document))
    return found.hexdigest()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with optional_import("--engine ray needs Ray", "ray"):
        import ray
        import ray.data
    return ray
