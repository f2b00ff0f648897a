"""From a recipe's collection to a source of batches: candidate pools, texts, and what the teachers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.identity import identify
from mixlm_rerank.eval.collections import Collection
from mixlm_rerank.eval.first_stages import FirstStage, RunFile
from mixlm_rerank.eval.hybrid import HybridTeacher, HybridWeights
from mixlm_rerank.eval.loading import Loading
from mixlm_rerank.eval.ranked import slug
from mixlm_rerank.eval.specs import make_first_stage
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.training.checkpoints import content, digest_of
from mixlm_rerank.training.mix import Source
from mixlm_rerank.training.pools import Pool, digest, make_pools, read_pools, write_pools
from mixlm_rerank.training.processes import one_at_a_time
from mixlm_rerank.training.recipe import CollectionPart
from mixlm_rerank.training.teacher import Teacher, teacher_scores

__all__ = ["Pooled", "Scoring", "first_stages", "pooled", "source", "taught"]


@dataclass(frozen=True)
class Pooled:
    """A collection's training queries with their candidates, and the candidates' texts.

    ``corpus``: hash of the whole corpus.
    """

    collection: Collection
    part: CollectionPart
    pools: list[Pool]
    texts: Mapping[str, str]
    corpus: str

    def hybrid(self, encoder: ItemEncoder, weights: HybridWeights, folder: Path) -> HybridTeacher:
        """The untrained teacher, with the statistics of the whole corpus. ``folder``: of what it reads meanwhile."""
        texts = (document.content for document in self.collection.corpus or ())
        return HybridTeacher(
            encoder, (text for text in texts if text.strip()), weights, folder
        )  # read where BM25 counts


@dataclass(frozen=True)
class Scoring:
    """A teacher, what its scores count, and the folder that keeps them: one file a collection.

    ``made_by``: hash of all that the scores depend on, besides queries and candidates.
    """

    teacher: Teacher
    weight: float
    folder: Path
    made_by: str


def pooled(
    collection: Collection,
    part: CollectionPart,
    depth: int,
    folder: Path,
    loading: Loading = Loading(),
    *,
    progress: bool = True,
) -> Pooled:
    """Pools by the part's first stages, made once of these documents, queries and judgments, and kept in ``folder``."""
    corpus, name = identify(collection.corpus or ()).digest[:16], slug(collection.name)
    stages = first_stages(part, folder / f"{name}-{corpus}", loading, progress=progress)
    found_by = [content(stage.path) if isinstance(stage, RunFile) else stage.name for stage in stages]
    path = folder / f"{name}-{digest_of(corpus, collection.queries, collection.qrels, found_by)}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pools(path, make_pools(collection, stages, depth=depth, size=depth))
    pools = read_pools(path)
    wanted = {docid for pool in pools for docid in pool.docids}
    texts = {document.docid: document.content for document in collection.corpus or () if document.docid in wanted}
    return Pooled(collection, part, pools, texts, corpus)


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
        path = one.folder / f"{slug(source.name)}-{digest(source.pools, source.texts, one.made_by)}.npy"
        with one_at_a_time(one.folder):
            own = teacher_scores(path, one.teacher, source.pools, source.texts, wanted=wanted, progress=progress)
        scores += one.weight * own
    return replace(source, scores=scores)


def first_stages(part: CollectionPart, folder: Path, loading: Loading, *, progress: bool = True) -> list[FirstStage]:
    """Those that the recipe names; what they build goes into ``folder``."""
    return [
        make_first_stage(word, part.source, part.split, folder, loading=loading, progress=progress)
        for word in part.first_stages
    ]
