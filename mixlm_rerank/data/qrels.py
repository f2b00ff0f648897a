"""Judgments: qid -> docid -> grade, from TREC or BEIR files."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .lines import lines

__all__ = ["read_qrels"]


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read TREC (``qid 0 docid grade``) or BEIR (``query-id <tab> corpus-id <tab> score``, with a header) judgments.

    Raises InputError for a malformed line, or a document judged twice for a query with different grades.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in lines(path):
        where = f"{path}, line {number}"
        columns = line.split()
        if number == 1 and columns[0] in ("query-id", "query_id", "qid"):
            continue
        if len(columns) not in (3, 4):
            raise InputError(f"{where}: {len(columns)} columns, expected 4 (qid 0 docid grade) or BEIR's 3")
        qid, docid, grade = columns[0], columns[-2], columns[-1]
        try:
            value = int(grade)
        except ValueError:
            raise InputError(f"{where}: the grade {grade!r} is not an integer") from None
        if qrels.setdefault(qid, {}).setdefault(docid, value) != value:
            raise InputError(f"{where}: document {docid!r} has two different grades for query {qid!r}")
    if not qrels:
        raise InputError(f"{path} holds no judgments")
    return qrels
