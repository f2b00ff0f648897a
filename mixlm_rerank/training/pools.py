"""Candidate pools: every training query with the documents to learn its ranking from.

From a judged collection: its relevant documents, and hard negatives of several first stages. From a bare corpus:
candidates many of which look relevant already, and, if none are given, queries made from titles and sentences.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.lines import json_lines, writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.systems.mixlm import TokenReranker
from mixlm_rerank.systems.ranked import Candidates, rank
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, Document, ScoredDoc

__all__ = ["Pool", "corpus_pools", "digest", "is_candidate", "make_pools", "read_pools", "synthetic_queries"]
__all__ += ["write_pools"]

FEWEST_WORDS, MOST_WORDS = 3, 24  # words of a synthetic query
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Pool:
    """One query and the documents to learn its ranking from.

    Attributes:
        docids: the candidates; unique, at least two.
        judged: grade of every judged document, candidate or not; grades below 0 are 0.
    """

    qid: str
    query: str
    docids: list[str]
    judged: dict[str, int]

    @property
    def relevant(self) -> list[str]:
        """Candidates with a grade above 0."""
        return [docid for docid in self.docids if self.judged.get(docid, 0) > 0]


def is_candidate(pools: Sequence[Pool]) -> NDArray[np.bool_]:
    """Which entries of an array [pools, most candidates] are candidates."""
    sizes = np.array([len(pool.docids) for pool in pools], dtype=int)
    return np.arange(sizes.max(initial=0)) < sizes[:, None]


def make_pools(
    collection: Collection, first_stages: Sequence[FirstStage], *, depth: int = 50, size: int = 24
) -> Iterator[Pool]:
    """Pools of at most ``size`` documents: the relevant ones, best grade first, then the first stages' best in turn.

    Queries without a relevant document or without any other candidate are left out. Documents that the collection
    lacks, or that have no text, are not candidates.

    Raises InputError if no query is left, or a first stage finds no document of the collection.
    """
    runs = [stage.retrieve(collection, depth) for stage in first_stages]
    known = {document.docid for document in collection.corpus or () if document.content.strip()}
    for stage, run in zip(first_stages, runs, strict=True):
        if any(run.values()) and not any(hit.docid in known for hits in run.values() for hit in hits):
            raise InputError(f"{stage.name} finds no document of {collection.name}: do they belong together?")
    left = 0
    for qid, query in collection.queries.items():
        grades = {docid: grade for docid, grade in collection.qrels[qid].items() if docid in known}
        relevant = sorted((docid for docid, grade in grades.items() if grade > 0), key=lambda docid: -grades[docid])
        found = [[hit.docid for hit in run.get(qid, ()) if hit.docid in known] for run in runs]
        in_turn = (docid for docid in chain.from_iterable(zip_longest(*found)) if docid is not None)
        docids = list(dict.fromkeys([*relevant[: size // 2], *in_turn]))[:size]
        if relevant and len(docids) > 1:
            left += 1
            yield Pool(qid, query, docids, {docid: max(0, grade) for docid, grade in grades.items()})
    if not left:
        raise InputError(f"{collection.name}: no query has a relevant document and another candidate to learn from")


def corpus_pools(
    path: Path, candidates: Candidates, work: Workplace, start: MixLM, *, size: int, hard: int, seed: int
) -> list[Pool]:
    """At most ``size`` candidates of each query, drawn once and kept in ``path``.

    ``hard`` of them are the top candidates of the first stage and, in turn, of ``start`` at one embedding token: they
    include most of the teacher's own top candidates, whose order matters most. A model without a residual (just cut
    out of the teacher) is not used for this. The others are drawn at random.

    Raises InputError unless two queries have two candidates each: one to train on, one to choose by.
    """
    if not path.exists():
        ranked: Mapping[str, Sequence[ScoredDoc | Candidate]] = {}
        if hard and candidates.of_query and start.config.residual != "none":
            system = TokenReranker(start, 1)
            system.name = "hard candidates"
            ranked = rank(system, candidates, work).ranking
        draw = random.Random(seed)
        pools = []
        for qid, hits in candidates.of_query.items():
            in_turn = chain.from_iterable(zip(hits, ranked.get(qid, hits), strict=True))
            first = list(dict.fromkeys(one.docid for one in in_turn))[: min(hard, size)]
            others = [hit.docid for hit in hits if hit.docid not in first]
            chosen = [*first, *draw.sample(others, min(size - len(first), len(others)))]
            if len(chosen) > 1:
                pools.append(Pool(qid, work.collection.queries[qid], chosen, {}))
        if len(pools) < 2:
            raise InputError(
                f"{candidates.first_stage} finds two documents or more for {len(pools)} of {len(candidates.of_query)} "
                "queries, and two such queries are needed: are they of this corpus?"
            )
        write_pools(path, pools)
    return read_pools(path)


def synthetic_queries(documents: Iterable[Document], count: int, seed: int = 0) -> dict[str, str]:
    """At most ``count`` distinct queries, qid -> text: titles and sentences of 3 to 24 words.

    ``count`` documents are drawn at random and give one query each; if these are too few, documents give further
    queries in turn. A document's title and a sentence have equal chances to come first. Memory: ``count`` documents.

    Raises InputError if no document has such a title or sentence.
    """
    draw = random.Random(seed)
    kept: list[Document] = []
    for number, document in enumerate(documents):  # reservoir sampling: the corpus is read once
        if len(kept) < count:
            kept.append(document)
        elif (place := draw.randrange(number + 1)) < count:
            kept[place] = document
    offers = [_offers(document, draw) for document in sorted(kept, key=lambda document: document.docid)]
    in_turn = (text for turn in zip_longest(*offers) for text in turn if text is not None)
    texts = list(islice(dict.fromkeys(in_turn), count))
    if not texts:
        raise InputError(
            f"no title or sentence of {FEWEST_WORDS} to {MOST_WORDS} words to make queries of: give a file of queries"
        )
    return {f"s{number}": text for number, text in enumerate(texts, 1)}


def _offers(document: Document, draw: random.Random) -> list[str]:
    """Queries made from a document, in random order."""
    title, sentences = _fitting([document.title]), _fitting(SENTENCE_END.split(document.text))
    draw.shuffle(sentences)
    return [*title, *sentences] if draw.random() < 0.5 else [*sentences[:1], *title, *sentences[1:]]


def _fitting(texts: Iterable[str]) -> list[str]:
    clean = (" ".join(text.split()) for text in texts)
    return [text for text in clean if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS]


def write_pools(path: str | Path, pools: Iterable[Pool]) -> None:
    """Write pools, one JSON object per line."""
    with writing(path) as file:
        file.writelines(f"{json.dumps(asdict(pool))}\n" for pool in pools)


def read_pools(path: str | Path) -> list[Pool]:
    """Read pools. Raises InputError for a malformed line, by its number."""
    pools = []
    for where, fields in json_lines(path):
        try:
            pool = Pool(**fields)
            whole = len(pool.docids) == len(set(pool.docids)) > 1 and isinstance(pool.judged, dict)
        except TypeError:
            whole = False
        if not whole:
            raise InputError(f"{where}: not a candidate pool (qid, query, docids that differ, judged)")
        pools.append(pool)
    return pools


def digest(pools: Iterable[Pool], texts: Mapping[str, str], *others: object) -> str:
    """Hash of queries and candidates with texts, in order, and of ``others``: a key for what is computed from them."""
    parts = hashlib.sha256(repr(others).encode())
    candidates: dict[str, None] = {}
    for pool in pools:
        parts.update(json.dumps([pool.qid, pool.query, pool.docids]).encode())
        candidates |= dict.fromkeys(pool.docids)
    for docid in candidates:
        parts.update(json.dumps(texts[docid]).encode())
    return parts.hexdigest()[:16]
