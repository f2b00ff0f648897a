"""From a recipe's collection to a source of batches: candidate pools, texts, and what the teachers say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.identity import identify
from mixlm_rerank.data.lines import writing
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage, RunFile
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.members import Member
from mixlm_rerank.systems.ranked import slug
from mixlm_rerank.systems.specs import make_first_stage
from mixlm_rerank.training.checkpoints import content_of, digest_of
from mixlm_rerank.training.mix import Source
from mixlm_rerank.training.pools import Pool, digest, make_pools, read_pools, write_pools
from mixlm_rerank.training.processes import locked
from mixlm_rerank.training.recipe import CollectionPart
from mixlm_rerank.training.teacher import teacher_scores

__all__ = ["Pooled", "first_stages", "pooled", "source", "taught"]


@dataclass(frozen=True)
class Pooled:
    """A collection's training queries with their candidates, and the candidates' texts and titles.

    ``corpus``: hash of the whole corpus.
    """

    collection: Collection
    part: CollectionPart
    pools: list[Pool]
    texts: Mapping[str, str]
    titles: Mapping[str, str]
    corpus: str

    def documents(self) -> Iterator[str]:
        """Texts of the whole corpus that have any."""
        texts = (document.content for document in self.collection.corpus or ())
        return (text for text in texts if text.strip())


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
    found_by = [
        content_of(stage.path) if isinstance(stage, RunFile) else (word, content_of(word.partition(":")[2]))
        for word, stage in zip(part.first_stages, stages, strict=True)
    ]
    path = folder / f"{name}-{digest_of(corpus, collection.queries, collection.qrels, found_by)}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pools(path, make_pools(collection, stages, depth=depth, size=depth))
    pools = read_pools(path)
    wanted = {docid for pool in pools for docid in pool.docids}
    documents = [document for document in collection.corpus or () if document.docid in wanted]
    texts = {document.docid: document.content for document in documents}
    titles = {document.docid: document.title for document in documents}
    return Pooled(collection, part, pools, texts, titles, corpus)


def source(own: Pooled, label_scale: float) -> Source:
    """Batches of one collection; the teacher knows labels alone."""
    sizes = np.array([len(pool.docids) for pool in own.pools])
    beyond = np.arange(sizes.max(initial=0)) >= sizes[:, None]
    scores = np.where(beyond, np.float32(np.nan), np.float32(0))
    highest = max(grade for pool in own.pools for grade in pool.judged.values())
    scale = label_scale if own.part.labels is None else own.part.labels
    return Source(own.collection.name, own.pools, own.texts, scores, own.part.weight, highest, scale, own.titles)


def taught(
    source: Source,
    members: Sequence[tuple[Member, float]],
    wanted: NDArray[np.bool_],
    folder: Path,
    *,
    progress: bool = True,
) -> Source:
    """The source under the weighted sum of ``members`` besides. Only ``wanted`` scores are computed, each once: they
    are kept in ``folder``, with what made them beside.
    """
    scores = source.scores.copy()
    for member, weight in members:
        candidates = digest(source.pools, source.texts)
        place = folder / slug(member.name)
        path = place / f"{slug(source.name)}-{digest_of(candidates, member.made_by)}.npy"
        with locked(place):
            with writing(path.with_suffix(".json")) as file:
                json.dump({"member": member.name, "made by": member.made_by, "candidates": candidates}, file, indent=1)
            own = teacher_scores(path, member, source.pools, source.texts, wanted=wanted, progress=progress)
        scores += weight * own
    return replace(source, scores=scores)


def first_stages(part: CollectionPart, folder: Path, loading: Loading, *, progress: bool = True) -> list[FirstStage]:
    """Those that the recipe names; what they build goes into ``folder``."""
    return [
        make_first_stage(word, part.source, part.split, folder, loading=loading, progress=progress)
        for word in part.first_stages
    ]
