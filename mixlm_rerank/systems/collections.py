"""A test collection: documents, judged queries and their judgments, from BEIR folders, ir_datasets or single files."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mixlm_rerank.data import Corpus, open_corpus, read_qrels, read_topics
from mixlm_rerank.data.irds import IrDataset
from mixlm_rerank.data.lines import file_in, some_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.types import Document

__all__ = ["Collection", "SomeDocuments", "folders_in", "judged_documents", "open_collection", "open_documents"]
__all__ += ["sampled"]

IRDS = "irds:"
LUCENE = "lucene:"
# Collections whose queries may themselves be documents: BEIR's own evaluation drops such a document.
QUERIES_ARE_DOCUMENTS = re.compile(r"(beir[-_/])?(arguana|quora)([-_/ ](dev|test))?", re.IGNORECASE)


@dataclass(frozen=True)
class Collection:
    """A test collection, on which systems are compared."""

    name: str  # for tables; an ir_datasets id has slashes
    corpus: Corpus | None  # read anew each time; None: no documents (runs and a token index do not need them)
    queries: dict[str, str]  # qid -> text of the judged queries
    # qid -> docid -> grade, for exactly these queries. A query without a relevant document is kept and counts 0. Grades
    # below 0 are kept; all our measures treat them as 0
    qrels: dict[str, dict[str, int]]
    # whether a query's own document (docid = qid) is dropped from its candidates, before the cut at a depth
    drop_same_id: bool = False

    def documents(self, purpose: str) -> Corpus:
        """The corpus. Raises InputError, naming ``purpose``, for a collection without documents."""
        if self.corpus is None:
            raise InputError(f"{self.name} has no documents for {purpose}: give its corpus")
        return self.corpus


@dataclass(frozen=True)
class SomeDocuments:
    """The documents of a corpus with the given docids."""

    corpus: Corpus
    docids: frozenset[str]

    def __iter__(self) -> Iterator[Document]:
        return (document for document in self.corpus if document.docid in self.docids)


def open_collection(
    source: str | Path, split: str = "test", *, topics: str | Path | None = None, qrels: str | Path | None = None
) -> Collection:
    """Open a collection: its judged queries with their judgments, and its documents.

    In BEIR's ArguAna and Quora, recognised by the name of folder or id, a query's own document is dropped.

    Args:
        source: a BEIR folder (``corpus.jsonl``, ``queries.jsonl``, ``qrels/``; without a corpus it is a collection
            without documents), ``irds:ID``, or anything that :func:`open_documents` opens.
        split: selects ``qrels/SPLIT.tsv`` of a BEIR folder, or ``ID/SPLIT`` of an ir_datasets id without judgments.
            Ignored if ``qrels`` is given.
        topics, qrels: files to use instead of the source's own (see :func:`read_topics`, :func:`read_qrels`); required
            if the source is only a corpus.

    Raises:
        InputError: the source lacks a part; no query is judged; a judged query has no text; bad lines, by number.
        MissingDependency: ir_datasets or Pyserini is needed and not installed.
    """
    source = str(source)
    opened = _open_irds if source.startswith(IRDS) else _open_beir if _is_beir(Path(source)) else _open_corpus_alone
    name, corpus, queries, judgments = opened(source, split, topics, qrels)
    drop_same_id = QUERIES_ARE_DOCUMENTS.fullmatch(name) is not None
    return Collection(name, corpus, _judged(name, queries, judgments), judgments, drop_same_id)


def open_documents(source: str) -> Corpus:
    """Open a corpus as :func:`open_corpus` does, or ``lucene:INDEX``: the documents stored in a Lucene index."""
    if not source.startswith(LUCENE):
        return open_corpus(source)
    from mixlm_rerank.integrations.pyserini import LuceneCorpus

    return LuceneCorpus(source.removeprefix(LUCENE))


def folders_in(source: str | Path, split: str = "test") -> list[str]:
    """BEIR folders with this split inside ``source``, sorted; empty if ``source`` is a BEIR folder or no folder.

    Raises InputError if there are BEIR folders, but none has the split.
    """
    folder = Path(source)
    if not folder.is_dir() or _is_beir(folder):
        return []
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_beir(path)]
    found = [str(path) for path in folders if split in _splits(path)]
    if folders and not found:
        raise InputError(f"none of the {len(folders)} BEIR folders in {folder} has a split {split!r} in its qrels")
    return found


def sampled(collection: Collection, count: int | None, seed: int = 0) -> Collection:
    """The collection with at most ``count`` of its queries, drawn at random; its name then says so.

    Raises InputError for a count below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"a sample needs at least 1 query, not {count}")
    total = len(collection.queries)
    if count is None or count >= total:
        return collection
    kept = set(random.Random(seed).sample(sorted(collection.queries), count))
    return replace(
        collection,
        name=f"{collection.name} ({count:,} of {total:,} queries)",
        queries={qid: text for qid, text in collection.queries.items() if qid in kept},
        qrels={qid: grades for qid, grades in collection.qrels.items() if qid in kept},
    )


def judged_documents(collection: Collection) -> Collection:
    """The collection with only those documents that are judged for some query; its name then says so."""
    judged = frozenset(docid for grades in collection.qrels.values() for docid in grades)
    corpus = None if collection.corpus is None else SomeDocuments(collection.corpus, judged)
    return replace(collection, name=f"{collection.name} (judged documents)", corpus=corpus)


Parts = tuple[str, Corpus | None, dict[str, str], dict[str, dict[str, int]]]
File = str | Path | None


def _is_beir(path: Path) -> bool:
    return bool(file_in(path, "corpus.jsonl") or file_in(path, "queries.jsonl") or (path / "qrels").exists())


def _open_beir(source: str, split: str, topics: File, qrels: File) -> Parts:
    folder, name = Path(source), _last_part(source)
    if qrels is None:
        splits = _splits(folder)
        if not splits:
            raise InputError(f"{folder} has no judgments (qrels/{split}.tsv): give a file of them as qrels")
        if split not in splits:
            raise InputError(f"{folder} has no split {split!r} in its qrels: there is {', '.join(splits)}")
        qrels, name = splits[split], name if split == "test" else f"{name} {split}"
    corpus = open_corpus(source) if file_in(folder, "corpus.jsonl") else None
    return name, corpus, read_topics(topics or folder), read_qrels(qrels)


def _splits(folder: Path) -> dict[str, Path]:
    return {file.name.partition(".tsv")[0]: file for file in sorted((folder / "qrels").glob("*.tsv*"))}


def _open_irds(source: str, split: str, topics: File, qrels: File) -> Parts:
    dataset = IrDataset(source.removeprefix(IRDS))
    if qrels is None:
        dataset = _judged_dataset(dataset, split)
    if topics is None and not dataset.held.has_queries():
        raise InputError(f"the ir_datasets dataset {dataset.id!r} has no queries: give a file of them as topics")
    queries = dataset.topics() if topics is None else read_topics(topics)
    judgments = dataset.qrels() if qrels is None else read_qrels(qrels)
    return dataset.id, dataset if dataset.held.has_docs() else None, queries, judgments


def _judged_dataset(dataset: IrDataset, split: str) -> IrDataset:
    """The dataset itself if it has judgments, else its split."""
    if dataset.held.has_qrels():
        if split not in ("test", dataset.id.rsplit("/")[-1]):
            raise InputError(f"{IRDS}{dataset.id} has judgments of its own: leave out the split {split!r}")
        return dataset
    splits = dataset.splits()
    if split not in splits:
        there = ", ".join(f"{dataset.id}/{name}" for name in splits) or "none under it either"
        raise InputError(f"the ir_datasets dataset {dataset.id!r} has no judgments for {split!r}: there is {there}")
    return IrDataset(f"{dataset.id}/{split}")


def _open_corpus_alone(source: str, split: str, topics: File, qrels: File) -> Parts:
    corpus, path = open_documents(source), source.removeprefix(LUCENE)
    if topics is None or qrels is None:
        raise InputError(f"{source} is a corpus alone: give files of topics and qrels too")
    name = _last_part(path) if Path(path).is_dir() else _last_part(path).split(".")[0]
    return name, corpus, read_topics(topics), read_qrels(qrels)


def _last_part(path: str) -> str:
    """The name of a file or folder, also for ``.`` and ``..``."""
    return Path(os.path.abspath(path)).name


def _judged(name: str, queries: Mapping[str, str], qrels: Mapping[str, object]) -> dict[str, str]:
    """The queries that are judged, in their own order."""
    judged = {qid: text for qid, text in queries.items() if qid in qrels}
    if not judged:
        raise InputError(
            f"{name}: no query is judged (queries: {some_ids(queries)}; judged: {some_ids(qrels)}): do they belong "
            "together?"
        )
    lacking = [qid for qid in qrels if not queries.get(qid, "").strip()]
    if lacking:
        raise InputError(
            f"{name}: {len(lacking):,} of {len(qrels):,} judged queries have no text ({some_ids(lacking)}): give "
            "topics that hold them, or take their judgments out"
        )
    return judged
