"""Candidate pools: for every training query its relevant documents and hard negatives out of several first stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

from mixlm_rerank.data.lines import json_lines, writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage

__all__ = ["Pool", "digest", "make_pools", "read_pools", "write_pools"]


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


def make_pools(
    collection: Collection, first_stages: Sequence[FirstStage], *, depth: int = 50, size: int = 24
) -> Iterator[Pool]:
    """Pools of at most ``size`` documents: the relevant ones, best grade first, then the first stages' best in turn.

    Queries without a relevant document, or for which nothing else is found, are left out.

    Documents that the collection lacks, or that have no text, are no candidates.

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


def write_pools(path: str | Path, pools: Iterable[Pool]) -> int:
    """One JSON object a line. Returns how many."""
    count = 0
    with writing(path) as file:
        for pool in pools:
            file.write(json.dumps(asdict(pool)) + "\n")
            count += 1
    return count


def read_pools(path: str | Path) -> list[Pool]:
    """Raises InputError for a malformed line, by its number."""
    return [_pool(fields, where) for where, fields in json_lines(path)]


def digest(pools: Iterable[Pool], texts: Mapping[str, str], *others: object) -> str:
    """Of queries and candidates with their texts, in their order, and of ``others``: what is computed of them is kept
    under it.
    """
    parts = hashlib.sha256(repr(others).encode())
    candidates: dict[str, None] = {}
    for pool in pools:
        parts.update(json.dumps([pool.qid, pool.query, pool.docids]).encode())
        candidates |= dict.fromkeys(pool.docids)
    for docid in candidates:
        parts.update(json.dumps(texts[docid]).encode())
    return parts.hexdigest()[:16]


def _pool(fields: Mapping[str, object], where: str) -> Pool:
    try:
        pool = Pool(**fields)  # type: ignore[arg-type]
        whole = len(pool.docids) == len(set(pool.docids)) > 1 and isinstance(pool.judged, dict)
    except TypeError:
        whole = False
    if not whole:
        raise InputError(f"{where}: not a candidate pool (qid, query, docids that differ, judged)")
    return pool
