"""Judgments: qid -> docid -> grade, from TREC or BEIR files."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .lines import lines

__all__ = ["add_judgment", "read_qrels"]


HEADERS = ("query-id", "query_id", "qid")


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read TREC (``qid 0 docid grade``) or BEIR (``query-id <tab> corpus-id <tab> score``, with a header) judgments.

    Grades below 0 (-2 is spam in TREC's web tracks) are kept: measures take them as not relevant, like 0.

    Raises InputError for a malformed line, or a document judged twice for a query with different grades.
    """
    qrels: dict[str, dict[str, int]] = {}
    separator = None
    for number, line in lines(path):
        where = f"{path}, line {number}"
        columns = line.strip().split(separator)
        if number == 1 and columns[0] in HEADERS:
            separator = "\t" if "\t" in line else None
            continue
        if len(columns) not in (3, 4):
            raise InputError(f"{where}: {len(columns)} columns, expected 4 (qid 0 docid grade) or BEIR's 3")
        qid, docid, grade = columns[0].strip(), columns[-2].strip(), columns[-1]
        try:
            value = int(grade)
        except ValueError:
            raise InputError(f"{where}: the grade {grade!r} is not an integer") from None
        add_judgment(qrels, qid, docid, value, where)
    if not qrels:
        raise InputError(f"{path} holds no judgments")
    return qrels


def add_judgment(qrels: dict[str, dict[str, int]], qid: str, docid: str, grade: int, where: str) -> None:
    """Put a judgment into ``qrels``. Raises InputError if there is another grade for the same document and query."""
    if qrels.setdefault(qid, {}).setdefault(docid, grade) != grade:
        raise InputError(f"{where}: document {docid!r} has two different grades for query {qid!r}")
