"""From a recipe's collection to a source of batches: candidate pools, texts, and what the teachers say."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection
from mixlm_rerank.eval.first_stages import BM25, FirstStage, RunFile
from mixlm_rerank.eval.hybrid import HybridTeacher, HybridWeights
from mixlm_rerank.eval.ranked import slug
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.training.mix import Source
from mixlm_rerank.training.pools import Pool, digest, make_pools, read_pools, write_pools
from mixlm_rerank.training.processes import one_at_a_time
from mixlm_rerank.training.recipe import CollectionPart
from mixlm_rerank.training.teacher import Teacher, teacher_scores

__all__ = ["Pooled", "Scoring", "first_stage", "pooled", "source", "taught"]


@dataclass(frozen=True)
class Pooled:
    """A collection's training queries with their candidates, and the candidates' texts."""

    collection: Collection
    part: CollectionPart
    pools: list[Pool]
    texts: Mapping[str, str]

    def hybrid(self, encoder: ItemEncoder, weights: HybridWeights) -> HybridTeacher:
        """The untrained teacher, with the statistics of the whole corpus."""
        texts = (document.content for document in self.collection.corpus or ())
        return HybridTeacher(encoder, (text for text in texts if text.strip()), weights)  # read where BM25 counts


@dataclass(frozen=True)
class Scoring:
    """A teacher, what its scores count, and the folder that keeps them: one file a collection."""

    teacher: Teacher
    weight: float
    folder: Path


def pooled(collection: Collection, part: CollectionPart, depth: int, folder: Path, *, progress: bool = True) -> Pooled:
    """Pools by the first stage, made once and kept in ``folder``. Raises InputError if they are of other queries, or of
    documents that are gone.
    """
    run = "" if part.run is None else f"-{_digest_of(Path(part.run))}"
    path = folder / f"{slug(collection.name)}{run}.jsonl"
    if not path.exists():
        stage = first_stage(part, path.with_suffix(".lucene"), progress=progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pools(path, make_pools(collection, [stage], depth=depth, size=depth))
    pools = read_pools(path)
    wanted = {docid for pool in pools for docid in pool.docids}
    texts = {document.docid: document.content for document in collection.corpus or () if document.docid in wanted}
    lacking = next((docid for docid in wanted if docid not in texts), None)
    if any(pool.qid not in collection.queries for pool in pools):
        raise InputError(f"{path} holds queries that {collection.name} has not, or that are left out now: delete it")
    if lacking is not None:
        raise InputError(f"{path}: the candidate {lacking!r} is no document of {collection.name}: delete the file")
    return Pooled(collection, part, pools, texts)


def source(own: Pooled, label_scale: float) -> Source:
    """Batches of one collection; the teacher knows labels alone."""
    sizes = np.array([len(pool.docids) for pool in own.pools])
    beyond = np.arange(sizes.max(initial=0)) >= sizes[:, None]
    scores = np.where(beyond, np.float32(np.nan), np.float32(0))
    highest = max(grade for pool in own.pools for grade in pool.judged.values())
    scale = label_scale if own.part.labels is None else own.part.labels
    return Source(own.collection.name, own.pools, own.texts, scores, own.part.weight, highest, scale)


def taught(source: Source, teachers: Sequence[Scoring], wanted: NDArray[np.bool_], *, progress: bool = True) -> Source:
    """The source under the weighted sum of ``teachers`` besides; only ``wanted`` scores are computed, and once."""
    scores = source.scores.copy()
    for one in teachers:
        path = one.folder / f"{slug(source.name)}-{digest(source.pools)}.npy"
        with one_at_a_time(one.folder):
            own = teacher_scores(path, one.teacher, source.pools, source.texts, wanted=wanted, progress=progress)
        scores += one.weight * own
    return replace(source, scores=scores)


def _digest_of(run: Path) -> str:
    try:
        return hashlib.sha256(run.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise InputError(f"cannot read the run {run}: {error.strerror or error}") from None


def first_stage(part: CollectionPart, index: Path, *, progress: bool = True) -> FirstStage:
    """The run that the recipe names, or BM25."""
    return BM25(index, progress=progress) if part.run is None else RunFile(part.run)
