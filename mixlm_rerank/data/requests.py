"""rank_llm's request JSONL: a query with its candidates and their texts on each line; in, and reranked out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..types import Candidate, Document, ScoredDoc
from .corpus import document_text
from .lines import id_in, json_lines, writing

__all__ = ["Requests", "read_requests", "write_requests"]


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
    """Write the requests back with their candidates in the new order and with the new scores; all else is kept.

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
    """What the item encoder would read of a request's ``doc``: a string, or an object with text and title."""
    if doc is None or isinstance(doc, str):
        return doc
    if not isinstance(doc, dict):
        raise InputError(f"{where}: doc must be a string or an object, not {type(doc).__name__}")
    title, text = document_text(doc, where)
    return Document("", text, title).content
