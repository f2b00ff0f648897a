"""Run one system over all queries of a collection. Each query is timed and saved on its own: a kill loses one query."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from mixlm_rerank.errors import InputError
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.collections import SomeDocuments
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.systems.machine import conditions, peak_memory, reset_peak_memory
from mixlm_rerank.systems.protocol import Efficiency, Kind, System
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["FIRST_STAGE", "ORACLE", "Candidates", "Ranked", "Record", "Timed", "find_candidates", "rank", "slug"]

FIRST_STAGE, ORACLE = "first stage", "oracle"


@dataclass(frozen=True)
class Candidates:
    """The candidates that every system ranks: the first stage's documents of each query with any, and their texts."""

    first_stage: str
    depth: int
    of_query: Mapping[str, list[Candidate]]
    texts: Mapping[str, str]  # docid -> text of the candidates; empty for a collection without documents
    documents: int | None = None  # count in the whole corpus; None without a corpus
    # qid -> mean words of all its relevant documents, found or not
    relevant_words: Mapping[str, int] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)  # docid -> title of the candidates


@dataclass(frozen=True)
class Ranked:
    """A system's rankings of all queries, and what they cost."""

    name: str
    description: str
    kind: Kind
    ranking: Mapping[str, Sequence[ScoredDoc]]
    tokens: int | None = None
    pointwise: bool = False
    seed_group: str | None = None
    efficiency: Efficiency | None = None


@dataclass(frozen=True)
class Timed:
    """One query's ranking, and the seconds that it took."""

    docs: list[ScoredDoc]
    seconds: float


class Record:
    """A JSONL file: the ``key`` of what is ranked on the first line, then one ranked query per line.

    With another key (another model, depth or first stage) the file is started over.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.ranked: dict[str, Timed] = {}
        self.costs: dict[str, Any] | None = None
        try:
            head, *rows = _whole_lines(path) or [""]
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
        known = head == _line({"key": key})
        for row in map(json.loads, rows if known else ()):
            if "costs" in row:
                self.costs = row["costs"]
                continue
            docs = [
                ScoredDoc(docid, score, rank, first, rank > len(row["docs"]) - row["missing"])
                for rank, (docid, score, first) in enumerate(row["docs"], 1)
            ]
            self.ranked[row["qid"]] = Timed(docs, row["seconds"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+" if known else "w", encoding="utf-8")
            self._file.truncate(sum(map(len, (head, *rows))) if known else 0)  # drops an incomplete line
            self._file.seek(0, 2)
            if not known:
                self._write({"key": key})
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def add(self, qid: str, timed: Timed) -> None:
        """Save one query's ranking. Raises InputError if it cannot be written; earlier rankings are kept."""
        docs = [(doc.docid, doc.score, doc.first_stage_score) for doc in timed.docs]
        missing = sum(doc.missing for doc in timed.docs)  # they stand last
        self._write({"qid": qid, "seconds": timed.seconds, "missing": missing, "docs": docs})
        self.ranked[qid] = timed

    def finish(self, costs: dict[str, Any]) -> None:
        """Save the other costs when all queries are ranked. Raises InputError if it cannot be written."""
        self._write({"costs": costs})
        self.costs = costs

    def close(self) -> None:
        with suppress(OSError):  # from a line that could not be written, which was reported
            self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        try:
            self._file.write(_line(line))
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}: {error.strerror or error}; {len(self.ranked):,} ranked queries are safe in "
                "it: make room and run the same command again to go on"
            ) from None


def find_candidates(work: Workplace, first_stage: FirstStage, depth: int) -> Candidates:
    """Run the first stage. Raises InputError if it finds nothing for any query, or documents that the corpus lacks."""
    found = {qid: hits for qid, hits in first_stage.retrieve(work.collection, depth).items() if hits}
    if not found:
        raise InputError(f"{first_stage.name} finds no candidates for any query of {work.collection.name}")
    wanted = {hit.docid for hits in found.values() for hit in hits}
    corpus = work.collection.corpus
    relevant = {
        qid: [docid for docid, grade in grades.items() if grade > 0] for qid, grades in work.collection.qrels.items()
    }
    judged = {docid for docids in relevant.values() for docid in docids}
    texts: dict[str, str] = {}
    titles: dict[str, str] = {}
    words: dict[str, int] = {}
    documents = 0
    for document in corpus or ():
        documents += 1
        if document.docid in wanted:
            texts[document.docid], titles[document.docid] = document.content, document.title
        if document.docid in judged:
            words[document.docid] = len(document.content.split())
    lacking = [docid for docid in wanted if docid not in texts]
    if corpus is not None and lacking:
        raise InputError(
            f"{len(lacking):,} candidates of {first_stage.name} are no documents of {work.collection.name} "
            f"({min(lacking)!r} ...): do they belong together?"
        )
    with_texts = {qid: [replace(hit, text=texts.get(hit.docid)) for hit in hits] for qid, hits in found.items()}
    lengths = {qid: [words[docid] for docid in docids if docid in words] for qid, docids in relevant.items()}
    means = {qid: sum(own) // len(own) for qid, own in lengths.items() if own}
    return Candidates(first_stage.name, depth, with_texts, texts, None if corpus is None else documents, means, titles)


def rank(system: System, candidates: Candidates, work: Workplace) -> Ranked:
    """Rank one query at a time and time each; queries ranked earlier are taken from the record."""
    hits = candidates.of_query
    with closing(Record(work.folder / f"{slug(system.name)}.jsonl", _key(system, candidates, work))) as record:
        left = [qid for qid in hits if qid not in record.ranked]
        if left or record.costs is None:
            _rank_queries(system, left, hits, work, record)
    seconds = np.array([record.ranked[qid].seconds for qid in hits])
    efficiency = Efficiency(
        documents_per_second=sum(map(len, hits.values())) / float(seconds.sum()),
        p50_ms=1000 * float(np.quantile(seconds, 0.5)),
        p99_ms=1000 * float(np.quantile(seconds, 0.99)),
        **record.costs or {},
    )
    return Ranked(
        system.name,
        system.description,
        system.kind,
        {qid: record.ranked[qid].docs for qid in hits},
        system.tokens,
        system.pointwise,
        system.seed_group,
        efficiency,
    )


def slug(name: str) -> str:
    """A name as one column of a run, and as a file's name.

    >>> slug("MixLM k=4 + 0.2 first stage")
    'MixLM-k=4-0.2-first-stage'
    """
    return re.sub(r"[^\w.=-]+", "-", name).strip("-.")


def _rank_queries(
    system: System, left: Sequence[str], hits: Mapping[str, list[Candidate]], work: Workplace, record: Record
) -> None:
    queries = work.collection.queries
    footprint = system.prepare(work)
    warm_up = next(iter(left or hits))
    system.rank(queries[warm_up], hits[warm_up])
    reset_peak_memory()
    task = f"{work.collection.name}: {system.name}"
    with progress_bar(len(hits), task, "queries", enabled=work.progress, initial=len(hits) - len(left)) as bar:
        for qid in left:
            started = time.perf_counter()
            docs = system.rank(queries[qid], hits[qid])
            seconds = time.perf_counter() - started
            if sorted(doc.docid for doc in docs) != sorted(hit.docid for hit in hits[qid]):
                raise InputError(
                    f"{system.name} does not rank the candidates of query {qid!r}, all of them and no others"
                )
            record.add(qid, Timed(docs, seconds))
            bar.update(1)
    size, built = (None, None) if footprint is None else astuple(footprint)
    record.finish({"peak_memory_bytes": peak_memory(), "index_bytes_per_document": size, "build_seconds": built})


def _key(system: System, candidates: Candidates, work: Workplace) -> str:
    """Key of a record: the system, queries, candidates, machine and version that a ranking and its cost depend on."""
    digest = hashlib.sha256()
    for qid, hits in candidates.of_query.items():
        row = (qid, work.collection.queries[qid], [(hit.docid, hit.score, hit.text) for hit in hits])
        digest.update(repr(row).encode("utf-8", "replace"))
    asked = [candidates.first_stage, candidates.depth, digest.hexdigest()[:16]]
    restricted = isinstance(work.collection.corpus, SomeDocuments)  # to some of the collection's documents
    kind = [] if work.own_index is None else [work.own_index.manifest.kind]
    return json.dumps([system.description, *asked, restricted, conditions(), *kind])


def _line(line: dict[str, object]) -> str:
    return json.dumps(line) + "\n"  # ASCII: a character is a byte


def _whole_lines(path: Path) -> list[str]:
    """The lines before the first incomplete one, cut off by a kill or lost in a power failure."""
    lines = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True) if path.is_file() else []
    return list(takewhile(_is_whole, lines))


def _is_whole(line: str) -> bool:
    try:
        return line.endswith("\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
