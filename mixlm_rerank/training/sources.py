"""The collections of a recipe: forbidden queries are removed, candidate pools and teacher scores are added."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.corpus import identify
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import Collection, judged_documents, open_collection, sampled
from mixlm_rerank.systems.first_stages import FirstStage, RunFile
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.members import Member
from mixlm_rerank.systems.ranked import slug
from mixlm_rerank.systems.specs import make_first_stage
from mixlm_rerank.training.folder import content_of, digest_of, locked
from mixlm_rerank.training.mix import Source
from mixlm_rerank.training.pools import digest, is_candidate, make_pools, read_pools, write_pools
from mixlm_rerank.training.recipe import CollectionPart, Recipe
from mixlm_rerank.training.teacher import teacher_scores

__all__ = ["Forbidden", "Pooled", "divided", "first_stages", "left_out", "plain", "pooled", "selected", "taught"]
__all__ += ["without_queries"]

Forbidden = Mapping[str, str]  # query as :func:`plain` gives it -> name of a collection that has it


def divided(recipe: Recipe) -> tuple[list[Collection], list[Collection], Forbidden, dict[str, dict[str, str]]]:
    """Training and development collections without forbidden queries; the queries that must not be trained on; and the
    queries left out: name of a collection -> qid -> name of the collection that has the query, too.

    Raises InputError if no query of a collection is left.
    """
    overlaps: dict[str, dict[str, str]] = {}

    def opened(parts: Sequence[CollectionPart], forbidden: Forbidden) -> list[Collection]:
        collections = []
        for part in parts:
            collection, found = without_queries(open_collection(part.source, part.split), forbidden)
            if found:  # two collections may have one name
                overlaps.setdefault(collection.name, {}).update(found)
            collections.append(collection)
        return collections

    tests = _asked(opened(recipe.never, {}))
    held_out = opened(recipe.development, tests)
    forbidden = _asked(held_out) | tests
    return opened(recipe.collections, forbidden), held_out, forbidden, overlaps


def _asked(collections: Iterable[Collection]) -> dict[str, str]:
    return {plain(query): one.name for one in collections for query in one.queries.values()}


def without_queries(collection: Collection, forbidden: Forbidden) -> tuple[Collection, dict[str, str]]:
    """The collection without forbidden queries, and those left out, as :func:`left_out` returns them.

    Raises InputError if no query is left.
    """
    found = left_out(collection.name, collection.queries, forbidden)
    queries = {qid: query for qid, query in collection.queries.items() if qid not in found}
    return replace(collection, queries=queries, qrels={qid: collection.qrels[qid] for qid in queries}), found


def left_out(name: str, queries: Mapping[str, str], forbidden: Forbidden) -> dict[str, str]:
    """The forbidden ones of ``queries`` (qid -> text): qid -> name of a collection that also has the query.

    Raises InputError if all queries of ``name`` are forbidden.
    """
    found = {qid: forbidden[plain(query)] for qid, query in queries.items() if plain(query) in forbidden}
    if found and len(found) == len(queries):
        raise InputError(f"every query of {name} is also one of {' or '.join(sorted(set(found.values())))}")
    return found


def plain(query: str) -> str:
    """Normal form in which equal queries agree: letters, marks and digits, without case; the whole text if it has none.

    >>> plain("What's  a Dog?") == plain("whats a dog"), plain("?") == plain("!")
    (True, False)
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LMN") or folded


@dataclass(frozen=True)
class Pooled:
    """A training collection with its candidate pools, as the recipe's ``part`` describes it."""

    collection: Collection
    part: CollectionPart
    corpus: str  # hash of the whole corpus
    source: Source  # its candidate pools, before there are teacher scores

    def documents(self) -> Iterator[str]:
        """Texts of the whole corpus, without empty ones."""
        texts = (document.content for document in self.collection.corpus or ())
        return (text for text in texts if text.strip())

    def labelled(self, scale: float) -> Source:
        """The source with labels only; ``scale``: log-odds of a label of 1, unless the part sets them."""
        return replace(self.source, label_scale=scale if self.part.labels is None else self.part.labels)


def selected(collection: Collection, part: CollectionPart) -> Collection:
    """The documents and queries of a training collection that the part asks for."""
    return sampled(judged_documents(collection) if part.judged_only else collection, part.queries)


def pooled(
    collection: Collection,
    part: CollectionPart,
    depth: int,
    folder: Path,
    loading: Loading = Loading(),
    *,
    progress: bool = True,
) -> Pooled:
    """Make candidate pools by the part's first stages, from the documents and queries that the part selects.

    They are made once and kept in ``folder``, which several runs may share.
    """
    collection = selected(collection, part)
    with locked(folder):
        corpus, name = identify(collection.corpus or ()).digest[:16], slug(collection.name)
        stages = first_stages(part, folder / f"{name}-{corpus}", loading, progress=progress)
        found_by = [
            content_of(stage.path) if isinstance(stage, RunFile) else (word, content_of(word.partition(":")[2]))
            for word, stage in zip(part.first_stages, stages, strict=True)
        ]
        path = folder / f"{name}-{digest_of(corpus, collection.queries, collection.qrels, found_by)}.jsonl"
        if not path.exists():
            write_pools(path, make_pools(collection, stages, depth=depth, size=depth))
        pools = read_pools(path)
    wanted = {docid for pool in pools for docid in pool.docids}
    documents = [document for document in collection.corpus or () if document.docid in wanted]
    texts = {document.docid: document.content for document in documents}
    titles = {document.docid: document.title for document in documents}
    unknown = np.where(is_candidate(pools), np.float32(0), np.float32(np.nan))
    highest = max(grade for pool in pools for grade in pool.judged.values())
    source = Source(collection.name, pools, texts, unknown, part.weight, highest, titles=titles)
    return Pooled(collection, part, corpus, source)


def taught(
    source: Source,
    members: Sequence[tuple[Member, float]],
    wanted: NDArray[np.bool_],
    folder: Path,
    *,
    progress: bool = True,
) -> Source:
    """The source with the weighted sum of the members' scores added to its scores. Only ``wanted`` scores are computed,
    each once: they are kept in ``folder``.
    """
    scores = source.scores.copy()
    for member, weight in members:
        candidates = digest(source.pools, source.texts)
        place = folder / slug(member.name)
        path = place / f"{slug(source.name)}-{digest_of(candidates, member.fingerprint)}.npy"
        with locked(place):
            own = teacher_scores(path, member, source.pools, source.texts, wanted=wanted, progress=progress)
        scores += weight * own
    return replace(source, scores=scores)


def first_stages(part: CollectionPart, folder: Path, loading: Loading, *, progress: bool = True) -> list[FirstStage]:
    """The first stages that the recipe names; what they build goes into ``folder``."""
    return [
        make_first_stage(word, part.source, part.split, folder, loading=loading, progress=progress)
        for word in part.first_stages
    ]
