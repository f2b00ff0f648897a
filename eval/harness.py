"""The harness: a collection, a first stage and systems in; rankings, measures, tests and costs out. Resumable."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixlm_rerank.data import write_run
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.analysis import depth_curve, examples, slices
from mixlm_rerank.eval.collections import Collection
from mixlm_rerank.eval.fidelity import fidelity
from mixlm_rerank.eval.first_stages import FirstStage
from mixlm_rerank.eval.machine import peak_memory, reset_peak_memory
from mixlm_rerank.eval.measures import evaluate, evaluate_queries
from mixlm_rerank.eval.oracle import oracle
from mixlm_rerank.eval.record import Record, Timed
from mixlm_rerank.eval.results import CollectionResult, Efficiency, Kind, SystemResult
from mixlm_rerank.eval.significance import compare
from mixlm_rerank.eval.systems import System
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.ranking import unranked
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["FIRST_STAGE", "ORACLE", "evaluate_collection"]

FIRST_STAGE, ORACLE = "first stage", "oracle"
JUDGED = "Judged@10"  # always shown: how much of a ranking is judged at all

Ranking = Mapping[str, Sequence[ScoredDoc]]


@dataclass(frozen=True)
class _Ranked:
    """A system's rankings of all queries, and what they cost."""

    name: str
    description: str
    kind: Kind
    ranking: Ranking
    tokens: int | None = None
    pointwise: bool = False
    efficiency: Efficiency | None = None


def evaluate_collection(
    collection: Collection,
    first_stage: FirstStage,
    systems: Sequence[System],
    folder: Path,
    *,
    measures: Sequence[str],
    depth: int = 100,
    baseline: str = FIRST_STAGE,
    teacher: str | None = None,
    progress: bool = True,
) -> CollectionResult:
    """Rank, time and measure every system on the first ``depth`` candidates; first stage and oracle come along.

    Rankings are kept in ``folder`` while they are made: called again, finished queries are not ranked again. All runs
    are written there as TREC files.

    Args:
        collection: with its documents, unless all systems do without texts.
        systems: with unique names.
        measures: the first is the main one, of the tests and curves.
        baseline, teacher: names of systems.

    Raises:
        InputError: names that are not unique or not there, no documents where texts are needed.
    """
    names = [FIRST_STAGE, *(system.name for system in systems), ORACLE]
    if len({_slug(name) for name in names}) < len(names):
        raise InputError(f"systems must have different names: {', '.join(names)}")
    for role, name in (("baseline", baseline), ("teacher", teacher)):
        if name is not None and name not in names:
            raise InputError(f"the {role} {name!r} is none of the systems {', '.join(names)}")
    candidates = first_stage.retrieve(collection, depth)
    texts = _texts(collection, candidates)
    candidates = {
        qid: [replace(hit, text=texts.get(hit.docid)) for hit in hits] for qid, hits in candidates.items() if hits
    }
    work = Workplace(collection, folder, progress)
    found = [_Ranked(FIRST_STAGE, first_stage.name, "first stage", {q: unranked(h) for q, h in candidates.items()})]
    found += [_rank(system, candidates, work, f"{first_stage.name}, depth {depth}") for system in systems]
    ceiling = "the same candidates in the order of their judgments"
    found.append(_Ranked(ORACLE, ceiling, "oracle", oracle(candidates, collection.qrels)))
    for system in found:
        write_run(folder / f"{_slug(system.name)}.trec", system.ranking, tag=_slug(system.name))
    documents = sum(1 for _ in collection.corpus) if collection.corpus is not None else None
    return _result(
        collection, documents, first_stage.name, found, candidates, texts, measures, depth, baseline, teacher
    )


def _rank(system: System, candidates: Mapping[str, list[Candidate]], work: Workplace, first_stage: str) -> _Ranked:
    """One query at a time, each timed; a query ranked before is taken from the record."""
    key = json.dumps([system.description, first_stage, _hash(work.collection.queries, candidates)])
    record = Record(work.folder / f"{_slug(system.name)}.jsonl", key)
    left = [qid for qid in candidates if qid not in record.ranked]
    if left or record.costs is None:
        _rank_queries(system, left, candidates, work, record)
    record.close()
    seconds = np.array([record.ranked[qid].seconds for qid in candidates])
    efficiency = Efficiency(
        documents_per_second=sum(map(len, candidates.values())) / float(seconds.sum()),
        p50_ms=1000 * float(np.quantile(seconds, 0.5)),
        p99_ms=1000 * float(np.quantile(seconds, 0.99)),
        **record.costs or {},
    )
    ranking = {qid: record.ranked[qid].docs for qid in candidates}
    return _Ranked(system.name, system.description, system.kind, ranking, system.tokens, system.pointwise, efficiency)


def _rank_queries(
    system: System, qids: Sequence[str], candidates: Mapping[str, list[Candidate]], work: Workplace, record: Record
) -> None:
    queries = work.collection.queries
    work.opened = None
    system.prepare(work)
    system.rank(queries[next(iter(candidates))], next(iter(candidates.values())))  # warm-up
    reset_peak_memory()
    task = f"{work.collection.name}: {system.name}"
    with progress_bar(
        len(candidates), task, "queries", enabled=work.progress, initial=len(candidates) - len(qids)
    ) as bar:
        for qid in qids:
            started = time.perf_counter()
            docs = system.rank(queries[qid], candidates[qid])
            record.add(qid, Timed(docs, time.perf_counter() - started))
            bar.update(1)
    index = work.opened
    record.finish(
        {
            "peak_memory_bytes": peak_memory(),
            "index_bytes_per_document": None if index is None else index.info().bytes_per_document,
            "build_seconds": work.build_seconds(),
        }
    )


def _result(
    collection: Collection,
    documents: int | None,
    first_stage: str,
    found: Sequence[_Ranked],
    candidates: Mapping[str, list[Candidate]],
    texts: Mapping[str, str],
    measures: Sequence[str],
    depth: int,
    baseline: str,
    teacher: str | None,
) -> CollectionResult:
    names = list(dict.fromkeys([*measures, JUDGED]))
    main, qrels = names[0], collection.qrels
    per_query = {system.name: evaluate_queries(qrels, system.ranking, names) for system in found}
    values = {name: by_measure[main] for name, by_measure in per_query.items()}
    comparisons = {comparison.system: comparison for comparison in compare(values, baseline)}
    rankings = {system.name: system.ranking for system in found}
    query_words = {qid: len(text.split()) for qid, text in collection.queries.items()}
    document_words = _relevant_words(qrels, texts)
    results = []
    for system in found:
        value = values[system.name]
        results.append(
            SystemResult(
                name=system.name,
                description=system.description,
                measures=evaluate(qrels, system.ranking, names),
                per_query=per_query[system.name],
                efficiency=system.efficiency,
                comparison=comparisons.get(system.name),
                fidelity=None if teacher in (None, system.name) else fidelity(system.ranking, rankings[str(teacher)]),
                tokens=system.tokens,
                seed_group=None,
                depth_curve=depth_curve(system.ranking, candidates, qrels, main, depth) if system.pointwise else {},
                slices=[
                    *slices("query length", "words", query_words, value),
                    *slices("length of the relevant documents", "words", document_words, value),
                ],
                kind=system.kind,
            )
        )
    shown = [
        example
        for system in found
        if system.efficiency is not None and system.name != baseline
        for example in examples(
            system.name,
            (system.ranking, rankings[baseline]),
            (values[system.name], values[baseline]),
            collection.queries,
            qrels,
            texts,
        )
    ]
    return CollectionResult(
        collection.name, documents, len(qrels), first_stage, depth, baseline, teacher, results, shown
    )


def _texts(collection: Collection, candidates: Mapping[str, Sequence[Candidate]]) -> dict[str, str]:
    """Of the candidates, and no other documents."""
    wanted = {hit.docid for hits in candidates.values() for hit in hits}
    corpus = collection.corpus if collection.corpus is not None else ()
    return {document.docid: document.content for document in corpus if document.docid in wanted}


def _relevant_words(qrels: Mapping[str, Mapping[str, int]], texts: Mapping[str, str]) -> dict[str, int]:
    """qid -> mean words of its relevant documents among the candidates."""
    found = {}
    for qid, grades in qrels.items():
        words = [len(texts[docid].split()) for docid, grade in grades.items() if grade > 0 and docid in texts]
        if words:
            found[qid] = sum(words) // len(words)
    return found


def _hash(queries: Mapping[str, str], candidates: Mapping[str, Sequence[Candidate]]) -> str:
    """Of all that is ranked, texts included: other candidates, other rankings."""
    digest = hashlib.sha256()
    for qid, hits in candidates.items():
        digest.update(
            repr((qid, queries[qid], [(hit.docid, hit.score, hit.text) for hit in hits])).encode("utf-8", "replace")
        )
    return digest.hexdigest()[:16]


def _slug(name: str) -> str:
    """A name as one column of a run, and as a file's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", name).strip("-")
