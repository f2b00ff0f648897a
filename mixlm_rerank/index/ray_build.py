"""Build a token index on many workers: Ray Data encodes, Parquet shards carry, the local import writes.

The corpus is cut into shards of documents. An actor for each core or GPU reads one, encodes it, and writes one of
tokens. A shard's name follows from its documents and the encoder, so an interrupted build finds again what is done,
whichever worker did it, and a shard that is written twice is the same one.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MissingDependency
from ..model import MixLM
from ..progress import progress_bar
from ..types import Document
from .builder import new_manifest, plan_ahead
from .entries import content_hash, key_of
from .exchange import import_begun, import_index
from .plan import checked
from .quantiser import Quantiser
from .shards import Shards

__all__ = ["build_on_ray"]

SHARD_DOCUMENTS = 4096


def build_on_ray(
    documents: Iterable[Document],
    model: MixLM,
    folder: Path,
    *,
    precision: str,
    corpus: str,
    skip_empty: bool,
    progress: bool,
    shards_url: str | None,
    workers: int | None,
) -> None:
    """See :meth:`TokenIndex.build`."""
    ray = _ray()
    quantiser = Quantiser(precision, model.config.tokens, model.item_encoder.hidden_size)
    manifest = new_manifest(model, quantiser, corpus)
    import_begun(folder, manifest, 0)  # refuse before the long work
    plan_ahead(documents, model, folder, quantiser, skip_empty=skip_empty, progress=progress)
    shards = Shards(shards_url or f"{folder.absolute()}.shards")
    shards.prepare()
    names, waiting, count = _staged(documents, shards, f"{model.fingerprint} {precision}".encode(), skip_empty)
    _encode(ray, model, shards, waiting, quantiser, workers, progress)
    shards.finish(replace(manifest, complete=True), names, count)
    import_index(shards.url, folder, progress=progress)
    if shards_url is None:
        shards.delete()


def _staged(
    documents: Iterable[Document], shards: Shards, salt: bytes, skip_empty: bool
) -> tuple[list[str], list[str], int]:
    """Put the documents where the workers find them. Returns all shards, those to be encoded, how many documents."""
    names: list[str] = []
    waiting, count = [], 0
    stream = checked(documents, skip_empty=skip_empty)
    while window := list(islice(stream, SHARD_DOCUMENTS)):
        names.append(f"part-{len(names):06d}-{_digest(window, salt)}.parquet")
        count += len(window)
        if not shards.holds(names[-1]):
            shards.write_documents(f"{names[-1]}.documents", window)
            waiting.append(names[-1])
    if not names:
        raise InputError("the corpus holds no documents")
    return names, waiting, count


def _encode(
    ray: Any,
    model: MixLM,
    shards: Shards,
    names: list[str],
    quantiser: Quantiser,
    workers: int | None,
    progress: bool,
) -> None:
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
            fn_constructor_args=(ray.put(model), shards.url, quantiser),
            compute=ray.data.ActorPoolStrategy(size=min(len(names), workers or gpus or int(resources["CPU"]))),
            batch_size=1,
            num_gpus=1 if gpus else None,
        )
        with progress_bar(None, "encode", "documents", enabled=progress) as bar:
            for row in encoded.iter_rows():
                bar.update(int(row["documents"]))
    finally:
        if started:
            ray.shutdown()


class _Encoder:
    """One worker: documents of a shard -> tokens of a shard."""

    def __init__(self, model: Any, url: str, quantiser: Quantiser) -> None:
        import ray
        import torch

        self.model = ray.get(model)
        if torch.cuda.is_available():
            self.model = self.model.to("cuda")
        self.shards = Shards(url)
        self.quantiser = quantiser

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        counts = []
        for name in batch["name"].tolist():
            documents = self.shards.read_documents(f"{name}.documents")
            tokens = self.model.encode([document.content for document in documents])
            keys = [key_of(document.docid) for document in documents]
            contents = [content_hash(document) for document in documents]
            self.shards.write(name, keys, contents, self.quantiser.pack(tokens))
            self.shards.remove(f"{name}.documents")
            counts.append(len(documents))
        return {"documents": np.array(counts)}


def _digest(documents: list[Document], salt: bytes) -> str:
    found = hashlib.blake2b(salt, digest_size=8)
    for document in documents:
        key = key_of(document.docid)
        found.update(len(key).to_bytes(2, "big") + key + content_hash(document))
    return found.hexdigest()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependency("--engine ray needs Ray: pip install 'mixlm-rerank[ray]'") from None
    return ray
