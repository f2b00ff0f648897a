"""The demo: questions on Python's standard library, answered by BM25 and by MixLM on top of it, side by side."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from mixlm_rerank.eval import evaluate, oracle
from mixlm_rerank.integrations.lucene import bm25_run, build_lucene_index, open_searcher

from ..data import write_run
from ..errors import InputError
from ..index import TokenIndex
from ..model import MixLM
from ..progress import progress_bar
from ..ranking import unranked
from ..reranker import Reranker
from ..scoring import BiEncoderScorer, FullTextScorer
from ..systems.protocol import by_score
from ..types import Candidate, ScoredDoc
from .corpus import stdlib_documents

__all__ = ["Question", "load_questions", "run_demo"]

DEPTH = 100
SHOWN = ("q03", "q20", "q40")
FULL_TEXT_EVERY = 4  # full text is slow, so it reads only every fourth question
MIXLM = "BM25 + MixLM"

Ranking = dict[str, list[ScoredDoc]]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its judgments, docid -> grade: 2 for an answer, 1 for a related document; all others have grade 0.

    The grades were given by hand from the docstrings only, so they favour no search system. At least half of the
    questions share no content word with their answers, by a rule that tests/demo spells out.
    """

    qid: str
    text: str
    relevant: dict[str, int]


def load_questions() -> list[Question]:
    """The questions in the order of their ids.

    >>> question = load_questions()[0]
    >>> question.qid, question.relevant["shutil.rmtree"]
    ('q01', 2)
    """
    lines = files(__package__).joinpath("questions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Question(row["_id"], row["text"], row["relevant"]) for row in rows]


def run_demo(folder: Path, say: Callable[[str], None]) -> None:
    """Build both indexes, rank, measure, and write runs and results into ``folder``.

    ``say`` receives the report, line by line.
    """
    started = time.perf_counter()
    documents, questions = stdlib_documents(), load_questions()
    queries = {question.qid: question.text for question in questions}
    qrels = {question.qid: question.relevant for question in questions}
    say(f"{len(documents):,} documents: every documented module, class and function of this Python's standard library")
    _make_room(folder)
    build_lucene_index(documents, folder / "lucene")
    candidates = bm25_run(open_searcher(folder / "lucene"), queries, hits=DEPTH)
    model = MixLM.from_pretrained("default")
    index = TokenIndex.build(documents, model, folder / "tokens", corpus="the standard library")

    mixlm = Reranker(model, index)
    some = list(queries)[::FULL_TEXT_EVERY]
    texts = {document.docid: document.content for document in documents}
    full_text, speeds = _side_by_side(mixlm, texts, {qid: queries[qid] for qid in some}, candidates)
    rankings: dict[str, Ranking] = {
        "BM25": {qid: unranked(hits) for qid, hits in candidates.items()},
        "BM25 + bi-encoder": Reranker(model, index, scorer=BiEncoderScorer(model)).rerank_batch(queries, candidates),
        MIXLM: mixlm.rerank_batch(queries, candidates),
        "BM25 + full text": full_text,
        "oracle": oracle(candidates, qrels),
    }
    results = {
        "documents": len(documents),
        "questions": len(questions),
        "depth": DEPTH,
        "nDCG@10": _quality(rankings, qrels),
        f"nDCG@10, {len(some)} questions": _quality(rankings, {qid: qrels[qid] for qid in some}),
        "documents_per_second": speeds,
        "index_bytes_per_document": index.info().bytes_per_document,
    }
    for question in questions:
        if question.qid in SHOWN:
            _show(question, rankings["BM25"], rankings[MIXLM], say)
    _summary(results, len(some), say)
    for name, ranking in rankings.items():
        write_run(folder / f"{name.replace(' ', '')}.trec", ranking, tag=name.replace(" ", ""))
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    say(f"\nRuns and results.json are in {folder}. It took {time.perf_counter() - started:.0f} s.")


def _make_room(folder: Path) -> None:
    """Create ``folder`` and remove the indexes of an earlier demo. Raises InputError if it holds any other files."""
    mark = folder / ".mixlm-demo"
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and not an earlier demo's: choose another folder (--output)")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for name in ("lucene", "tokens"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _quality(rankings: Mapping[str, Ranking], qrels: Mapping[str, Mapping[str, int]]) -> dict[str, float | None]:
    """nDCG@10 by system, or None where a ranking lacks some of the questions."""
    return {
        name: evaluate(qrels, ranking, ["nDCG@10"])["nDCG@10"] if qrels.keys() <= ranking.keys() else None
        for name, ranking in rankings.items()
    }


def _side_by_side(
    mixlm: Reranker, texts: Mapping[str, str], queries: Mapping[str, str], candidates: Mapping[str, Sequence[Candidate]]
) -> tuple[Ranking, dict[str, float]]:
    """Time MixLM and its full-text mode alternately, one question at a time, each from docids to ranking.

    Returns the full-text rankings, and for both modes the median documents per second.
    """
    full_text = FullTextScorer(mixlm.model)

    def read_in_full(query: str, hits: Sequence[Candidate]) -> list[ScoredDoc]:
        tokens = torch.from_numpy(mixlm.index.fetch([hit.docid for hit in hits]).tokens)  # for the residual readout
        return by_score(hits, full_text.score(query, [texts[hit.docid] for hit in hits], tokens))

    ranking: Ranking = {}
    seconds: dict[str, list[float]] = {"MixLM": [], "full text": []}
    with progress_bar(len(queries), "full text", "questions", enabled=True) as bar:
        for qid, query in queries.items():
            hits = candidates[qid]
            started = time.perf_counter()
            mixlm.rerank(query, hits)
            between = time.perf_counter()
            ranking[qid] = read_in_full(query, hits)
            seconds["MixLM"].append((between - started) / max(1, len(hits)))
            seconds["full text"].append((time.perf_counter() - between) / max(1, len(hits)))
            bar.update(1)
    # the first question is the warm-up
    return ranking, {name: 1 / statistics.median(times[1:]) for name, times in seconds.items()}


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


def _summary(results: Mapping[str, Any], some: int, say: Callable[[str], None]) -> None:
    """``some``: number of questions that were also read in full text."""
    say("  (** answers the question, * is related)")
    say(f"\nnDCG@10, each system on the first {DEPTH} of BM25:")
    say(" " * 22 + f"{results['questions']} questions".rjust(15) + f"{some} of them".rjust(15))
    for name, value in results["nDCG@10"].items():
        both = (value, results[f"nDCG@10, {some} questions"][name])
        say(f"  {name:<20}" + "".join("-".rjust(15) if each is None else f"{each:15.3f}" for each in both))
    mixlm, full_text = results["documents_per_second"].values()
    say(f"\nSpeed, one question at a time, medians of {some - 1} questions, both in this run:")
    say(f"  MixLM        {mixlm:8,.0f} documents/s")
    say(f"  full text    {full_text:8,.0f} documents/s   (the same model reading the documents' text)")
    say(f"  ratio        {mixlm / full_text:8.0f}")
    say(f"  token index  {results['index_bytes_per_document']:8,.0f} bytes a document")
