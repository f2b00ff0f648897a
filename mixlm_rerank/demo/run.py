"""The demo: questions on Python's standard library, answered by BM25 and by MixLM on top of it, side by side."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mixlm_rerank.eval import evaluate, oracle
from mixlm_rerank.integrations.lucene import bm25_run, build_lucene_index, open_searcher

from ..data import write_run
from ..errors import InputError
from ..index import TokenIndex
from ..model import MixLM
from ..progress import progress_bar
from ..ranking import ranked, unranked
from ..reranker import Reranker
from ..scoring import BiEncoderScorer, FullTextScorer
from ..types import Candidate, ScoredDoc
from .corpus import stdlib_documents
from .questions import Question, load_questions

__all__ = ["run_demo"]

DEPTH = 100
SHOWN = ("q03", "q20", "q40")
FULL_TEXT_EVERY = 4  # full text is slow: every fourth question has to do
MIXLM, FULL_TEXT = "BM25 + MixLM", "BM25 + full text"

Ranking = dict[str, list[ScoredDoc]]


@dataclass(frozen=True)
class SideBySide:
    """MixLM and its own full-text mode on the same questions, timed in turn: rankings, median documents a second."""

    full_text: Ranking
    mixlm_speed: float
    full_text_speed: float


def run_demo(folder: Path, say: Callable[[str], None]) -> None:
    """Build both indexes, rank, measure, and write runs and results into ``folder``.

    ``say`` receives what there is to read, line by line.
    """
    started = time.perf_counter()
    documents, questions = stdlib_documents(), load_questions()
    queries = {question.qid: question.text for question in questions}
    say(f"{len(documents):,} documents: every documented module, class and function of this Python's standard library")
    _make_room(folder)
    build_lucene_index(documents, folder / "lucene")
    candidates = bm25_run(open_searcher(folder / "lucene"), queries, hits=DEPTH)
    model = MixLM.from_pretrained("default")
    index = TokenIndex.build(documents, model, folder / "tokens", corpus="the standard library")

    texts = {document.docid: document.content for document in documents}
    mixlm = Reranker(model, index)
    side_by_side = _side_by_side(
        mixlm,
        texts,
        {question.qid: question.text for question in questions[::FULL_TEXT_EVERY]},
        candidates,
    )
    rankings: dict[str, Ranking] = {
        "BM25": {qid: unranked(hits) for qid, hits in candidates.items()},
        "BM25 + bi-encoder": Reranker(model, index, scorer=BiEncoderScorer(model)).rerank_batch(queries, candidates),
        MIXLM: mixlm.rerank_batch(queries, candidates),
        FULL_TEXT: side_by_side.full_text,
    }
    qrels = {question.qid: question.relevant for question in questions}
    rankings["oracle"] = oracle(candidates, qrels)
    quality = {name: _quality(ranking, qrels) for name, ranking in rankings.items()}
    some = {qid: qrels[qid] for qid in side_by_side.full_text}
    quality_of_some = {name: _quality(ranking, some) for name, ranking in rankings.items()}

    for question in questions:
        if question.qid in SHOWN:
            _show(question, rankings["BM25"], rankings[MIXLM], say)
    _summary(quality, quality_of_some, side_by_side, index, len(questions), say)
    for name, ranking in rankings.items():
        write_run(folder / f"{name.replace(' ', '')}.trec", ranking, tag=name.replace(" ", ""))
    results = {
        "documents": len(documents),
        "questions": len(questions),
        "depth": DEPTH,
        "nDCG@10": quality,
        f"nDCG@10, {len(some)} questions": quality_of_some,
        "documents_per_second": {"MixLM": side_by_side.mixlm_speed, "full text": side_by_side.full_text_speed},
        "index_bytes_per_document": index.info().bytes_per_document,
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    say(f"\nRuns and results.json are in {folder}. It took {time.perf_counter() - started:.0f} s.")


def _make_room(folder: Path) -> None:
    """An empty folder, but for what an earlier demo left; anybody else's files are not touched."""
    mark = folder / ".mixlm-demo"
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and not an earlier demo's: choose another folder (--output)")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for name in ("lucene", "tokens"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _quality(ranking: Ranking, qrels: Mapping[str, Mapping[str, int]]) -> float | None:
    """nDCG@10, or None where the ranking lacks some of the questions."""
    return evaluate(qrels, ranking, ["nDCG@10"])["nDCG@10"] if qrels.keys() <= ranking.keys() else None


def _side_by_side(
    mixlm: Reranker, texts: Mapping[str, str], queries: Mapping[str, str], candidates: Mapping[str, Sequence[Candidate]]
) -> SideBySide:
    """One question at a time, from docids to ranking."""
    full_text = FullTextScorer(mixlm.model)

    def read_in_full(query: str, hits: Sequence[Candidate]) -> list[ScoredDoc]:
        tokens = torch.from_numpy(mixlm.index.fetch([hit.docid for hit in hits]).tokens)  # for the residual readout
        scores = full_text.score(query, [texts[hit.docid] for hit in hits], tokens).numpy().astype(np.float64)
        return ranked(hits, np.ones(len(hits), dtype=bool), scores)

    ranking: Ranking = {}
    seconds: dict[str, list[float]] = {MIXLM: [], FULL_TEXT: []}
    with progress_bar(len(queries), "full text", "questions", enabled=True) as bar:
        for qid, query in queries.items():
            hits = candidates[qid]
            started = time.perf_counter()
            mixlm.rerank(query, hits)
            between = time.perf_counter()
            ranking[qid] = read_in_full(query, hits)
            seconds[MIXLM].append((between - started) / max(1, len(hits)))
            seconds[FULL_TEXT].append((time.perf_counter() - between) / max(1, len(hits)))
            bar.update(1)
    speeds = [1 / statistics.median(times[1:]) for times in seconds.values()]  # the first question is the warm-up
    return SideBySide(ranking, *speeds)


def _show(question: Question, before: Ranking, after: Ranking, say: Callable[[str], None]) -> None:
    say(f"\n{question.text}")
    say(f"     {'BM25':<42}BM25 + MixLM")
    for rank in range(5):
        cells = []
        for ranking in (before, after):
            docs = ranking[question.qid]
            docid = docs[rank].docid if rank < len(docs) else ""
            mark = {2: "**", 1: "*"}.get(question.relevant.get(docid, 0), "")
            cells.append(f"{docid[:36]} {mark}")
        say(f"  {rank + 1}. {cells[0]:<42}{cells[1]}")


def _summary(
    quality: Mapping[str, float | None],
    quality_of_some: Mapping[str, float | None],
    speeds: SideBySide,
    index: TokenIndex,
    questions: int,
    say: Callable[[str], None],
) -> None:
    some = len(speeds.full_text)
    say("  (** answers the question, * is related)")
    say(f"\nnDCG@10, each system on the first {DEPTH} of BM25:")
    say(f"  {'':<20}{f'{questions} questions':>15}{f'{some} of them':>15}")
    for name, value in quality.items():
        say(f"  {name:<20}{_cell(value):>15}{_cell(quality_of_some[name]):>15}")
    say(f"\nSpeed, one question at a time, medians of {some - 1} questions, both in this run:")
    say(f"  MixLM        {speeds.mixlm_speed:8,.0f} documents/s")
    say(f"  full text    {speeds.full_text_speed:8,.0f} documents/s   (the same model reading the documents' text)")
    say(f"  ratio        {speeds.mixlm_speed / speeds.full_text_speed:8.0f}")
    say(f"  token index  {index.info().bytes_per_document:8,.0f} bytes a document")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
