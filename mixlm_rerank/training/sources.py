"""From a recipe's collection to a source of batches: candidate pools, texts, and whoever teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection
from mixlm_rerank.eval.first_stages import BM25, FirstStage, RunFile
from mixlm_rerank.eval.hybrid import HybridTeacher, HybridWeights
from mixlm_rerank.eval.ranked import slug
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.training.mix import PairTeacher, Source
from mixlm_rerank.training.pools import Pool, make_pools, read_pools, write_pools
from mixlm_rerank.training.recipe import CollectionPart
from mixlm_rerank.training.stored import StoredTeacher
from mixlm_rerank.training.teacher import Teacher, teacher_scores

__all__ = ["Ensemble", "Pooled", "first_stage", "pooled", "source"]


@dataclass(frozen=True)
class Pooled:
    """A collection's training queries with their candidates, and the candidates' texts."""

    collection: Collection
    part: CollectionPart
    pools: list[Pool]
    texts: Mapping[str, str]


class Ensemble:
    """A :data:`PairTeacher`: the weighted sum of others; NaN where one of them does not know. Of none: 0."""

    def __init__(self, parts: Sequence[tuple[float, PairTeacher]]) -> None:
        self._parts = parts

    def __call__(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """Texts [q], [n] -> float32 [q, n]."""
        scores = torch.zeros(len(queries), len(documents))
        for weight, teacher in self._parts:
            scores += weight * teacher(queries, documents)
        return scores


def pooled(collection: Collection, part: CollectionPart, depth: int, folder: Path, *, progress: bool = True) -> Pooled:
    """Pools by the first stage, made once and kept in ``folder``."""
    path = folder / f"{slug(collection.name)}.jsonl"
    if not path.exists():
        stage = first_stage(part, path.with_suffix(".lucene"), progress=progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pools(path, make_pools(collection, [stage], depth=depth, size=depth))
    pools = read_pools(path)
    wanted = {docid for pool in pools for docid in pool.docids}
    texts = {document.docid: document.content for document in collection.corpus or () if document.docid in wanted}
    lacking = next((docid for docid in wanted if docid not in texts), None)
    if lacking is not None:
        raise InputError(f"{path}: the candidate {lacking!r} is no document of {collection.name}: delete the file")
    return Pooled(collection, part, pools, texts)


def source(
    own: Pooled,
    encoder: ItemEncoder,
    weights: HybridWeights,
    label_scale: float,
    *,
    across: bool = False,
    cross_encoder: tuple[float, Teacher, Path] | None = None,
    progress: bool = True,
) -> Source:
    """Batches of one collection under its teacher.

    Args:
        encoder: of the late-interaction teacher, and of the queries, to bring near ones together.
        weights: of the late-interaction teacher's parts.
        label_scale, across: see :class:`Source`.
        cross_encoder: its weight, itself, and the folder of its scores, which are computed once.
    """
    parts: list[tuple[float, PairTeacher]] = []
    if any(astuple(weights)):
        everything = [document.content for document in own.collection.corpus or () if document.content.strip()]
        parts.append((1.0, HybridTeacher(encoder, everything, weights)))
    if cross_encoder is not None:
        weight, teacher, folder = cross_encoder
        path = folder / f"{slug(own.collection.name)}.npy"
        scores = teacher_scores(path, teacher, own.pools, own.texts, progress=progress)
        parts.append((weight, StoredTeacher(own.pools, own.texts, scores)))
    return Source(
        own.collection.name,
        own.pools,
        own.texts,
        encoder.embed_queries([pool.query for pool in own.pools]).numpy(),
        Ensemble(parts),
        own.part.weight,
        max(grade for pool in own.pools for grade in pool.judged.values()),
        label_scale,
        across,
    )


def first_stage(part: CollectionPart, index: Path, *, progress: bool = True) -> FirstStage:
    """The run that the recipe names, or BM25."""
    return BM25(index, progress=progress) if part.run is None else RunFile(part.run)
