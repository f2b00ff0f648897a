"""The candidates of each query: runs, as TREC or MS MARCO files, and rank_llm's requests, which hold texts too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..types import Candidate, Document, ScoredDoc
from .corpus import document_text
from .lines import id_in, json_lines, lines, writing

__all__ = ["Requests", "check_ids", "read_requests", "read_run", "write_requests", "write_run"]

TREC = "qid Q0 docid rank score tag"
MSMARCO = "qid docid rank"
FLOAT32_MAX = 3.4e38


def read_run(path: str | Path) -> dict[str, list[Candidate]]:
    """Read the candidates of each query, best first, from a TREC file (6 columns) or an MS MARCO file (3 columns).

    TREC candidates are ordered by score, equal scores in file order; the rank column is ignored, as in trec_eval.
    MS MARCO candidates are ordered by rank, whatever the first rank is, and get the score 1 / place.

    Raises InputError for a malformed line, a score that is not finite, or a document that occurs twice for a query.
    """
    run: dict[str, dict[str, Candidate]] = {}
    width = 0
    for number, line in lines(path):
        where = f"{path}, line {number}"
        columns = line.split()
        if not width and len(columns) in (3, 6):
            width = len(columns)
        if len(columns) != width:
            expected = {6: f"6 ({TREC})", 3: f"3 ({MSMARCO})"}.get(width, f"6 ({TREC}) or 3 ({MSMARCO})")
            raise InputError(f"{where}: {len(columns)} columns, expected {expected}")
        if width == 6:
            qid, docid, score = columns[0], columns[2], _number(columns[4], "score", where)
        else:
            qid, docid, score = columns[0], columns[1], -_number(columns[2], "rank", where)
        candidates = run.setdefault(qid, {})
        if docid in candidates:
            raise InputError(f"{where}: document {docid!r} occurs twice for query {qid!r}")
        candidates[docid] = Candidate(docid, score)
    if not run:
        raise InputError(f"{path} holds no candidates")
    ranked = {qid: sorted(found.values(), key=lambda hit: -hit.score) for qid, found in run.items()}
    if width == 6:
        return ranked
    return {qid: [replace(hit, score=1 / place) for place, hit in enumerate(hits, 1)] for qid, hits in ranked.items()}


def check_ids(run: Mapping[str, Iterable[Candidate | ScoredDoc]]) -> None:
    """Raises InputError for a qid or docid that is empty or holds white space, which separates the columns of a run."""
    for qid, docs in run.items():
        for kind, one in (("qid", qid), *(("docid", doc.docid) for doc in docs)):
            if one.split() != [one]:
                raise InputError(f"the {kind} {one!r} cannot stand in a run: it is empty or holds white space")


def write_run(
    path: str | Path, results: Mapping[str, Sequence[ScoredDoc]], *, tag: str = "mixlm", msmarco: bool = False
) -> None:
    """Write ranked documents, best first.

    Evaluation tools order by score and break ties by docid, and trec_eval keeps scores as float32. Therefore the TREC
    scores written decrease strictly with rank, in six decimals and in float32, even if the original scores are equal.

    Raises InputError for an id or tag that is not a single column, or a score that is not finite.
    """
    check_ids(results)
    if tag.split() != [tag]:
        raise InputError(f"the tag {tag!r} cannot stand in a run: it is empty or holds white space")
    with writing(path) as file:
        for qid, docs in results.items():
            previous = None
            for rank, doc in enumerate(docs, 1):
                if msmarco:
                    file.write(f"{qid}\t{doc.docid}\t{rank}\n")
                    continue
                if not abs(doc.score) < FLOAT32_MAX:
                    raise InputError(f"{path}: the score {doc.score} of document {doc.docid!r} is not finite")
                millionths = round(doc.score * 1_000_000)
                if previous is not None:
                    # the smallest difference that is visible in float32: two units in the last place
                    step = math.ceil(2_000_000 * 2**29 * math.ulp(previous / 1_000_000))
                    millionths = min(millionths, previous - max(1, step))
                previous = millionths
                file.write(f"{qid} Q0 {doc.docid} {rank} {millionths / 1_000_000:.6f} {tag}\n")


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: the {name} {text!r} is not a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: the {name} {text!r} is not finite")
    return value


@dataclass(frozen=True)
class Requests:
    """Queries, their candidates (with texts, where the file has them), and the file's own objects to write back."""

    queries: dict[str, str]
    candidates: dict[str, list[Candidate]]
    raw: dict[str, dict[str, Any]]


def read_requests(path: str | Path) -> Requests:
    """Read lines ``{"query": {"text", "qid"}, "candidates": [{"docid", "score", "doc"}]}``.

    Raises InputError for a malformed line, a qid or (within a query) a docid that occurs twice.
    """
    requests = Requests({}, {}, {})
    for where, line in json_lines(path):
        try:
            qid, text = _id(line["query"], "qid"), line["query"]["text"]
            hits = [(_id(hit, "docid"), float(hit["score"]), hit.get("doc")) for hit in line["candidates"]]
            if not isinstance(text, str):
                raise TypeError
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise InputError(
                f'{where}: expected {{"query": {{"text", "qid"}}, "candidates": [{{"docid", "score", "doc"}}]}}, '
                "ids as strings or integers"
            ) from None
        if qid in requests.queries:
            raise InputError(f"{where}: qid {qid!r} occurs twice")
        if len({docid for docid, _, _ in hits}) < len(hits):
            raise InputError(f"{where}: a document occurs twice for query {qid!r}")
        if not all(math.isfinite(score) for _, score, _ in hits):
            raise InputError(f"{where}: a score is not finite")
        requests.queries[qid] = text
        requests.candidates[qid] = [Candidate(docid, score, _text(doc, where)) for docid, score, doc in hits]
        requests.raw[qid] = line
    if not requests.queries:
        raise InputError(f"{path} holds no requests")
    return requests


def write_requests(path: str | Path, requests: Requests, results: Mapping[str, Sequence[ScoredDoc]]) -> None:
    """Write the requests back with their candidates in the new order and with the new scores; everything else is kept.

    A candidate that was not scored gets ``"missing": true``.
    """
    with writing(path) as file:
        for qid, docs in results.items():
            by_docid = {str(hit["docid"]): hit for hit in requests.raw[qid]["candidates"]}
            hits = [
                {**by_docid[doc.docid], "score": doc.score} | ({"missing": True} if doc.missing else {}) for doc in docs
            ]
            file.write(json.dumps({**requests.raw[qid], "candidates": hits}, ensure_ascii=False) + "\n")


def _id(fields: Mapping[str, Any], key: str) -> str:
    found = id_in(fields, [key])
    if found is None:
        raise ValueError
    return found


def _text(doc: Any, where: str) -> str | None:
    """Text of a request's ``doc`` (a string, or an object with text and title) as the item encoder reads it."""
    if doc is None or isinstance(doc, str):
        return doc
    if not isinstance(doc, dict):
        raise InputError(f"{where}: doc must be a string or an object, not {type(doc).__name__}")
    title, text = document_text(doc, where)
    return Document("", text, title).content
