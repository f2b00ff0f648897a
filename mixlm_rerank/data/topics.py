"""Topics: qid -> query text, from TSV, BEIR JSONL or TREC SGML."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .lines import json_lines, lines
from .trec import trec_topics

__all__ = ["read_topics"]


def read_topics(source: str | Path) -> dict[str, str]:
    """Read ``qid <tab> query`` lines, a BEIR ``queries.jsonl`` or the folder that holds one, or TREC topics.

    Of TREC topics (``<top><num><title>``) the title is the query. Files may be gzipped; JSONL goes by its suffix or by
    a first line that begins with ``{``, TREC topics by one that begins with ``<``.

    Raises InputError for a malformed line, an empty query or a qid that occurs twice.
    """
    path = Path(source)
    if path.is_dir():
        path = next((path / n for n in ("queries.jsonl", "queries.jsonl.gz") if (path / n).is_file()), path)
        if path.is_dir():
            raise InputError(f"{path} is a folder without queries.jsonl")
    topics: dict[str, str] = {}
    for where, qid, text in _rows(path):
        if not text.strip():
            raise InputError(f"{where}: empty query for qid {qid!r}")
        if qid in topics:
            raise InputError(f"{where}: qid {qid!r} occurs twice")
        topics[qid] = text
    if not topics:
        raise InputError(f"{path} holds no queries")
    return topics


def _rows(path: Path) -> list[tuple[str, str, str]]:
    beginning = next((line.lstrip()[:1] for _, line in lines(path)), "")
    if ".json" in path.suffixes or ".jsonl" in path.suffixes or beginning == "{":
        return _json_rows(path)
    return list(trec_topics(path)) if beginning == "<" else _tsv_rows(path)


def _json_rows(path: Path) -> list[tuple[str, str, str]]:
    rows = []
    for where, fields in json_lines(path):
        qid, text = fields.get("_id", fields.get("qid", fields.get("id"))), fields.get("text", fields.get("query"))
        if not isinstance(qid, str | int) or not isinstance(text, str):
            raise InputError(f'{where}: expected {{"_id": ..., "text": ...}}, found the keys {sorted(fields)}')
        rows.append((where, str(qid), text))
    return rows


def _tsv_rows(path: Path) -> list[tuple[str, str, str]]:
    rows = []
    for number, line in lines(path):
        where = f"{path}, line {number}"
        qid, tab, text = line.partition("\t")
        if not tab or not qid.strip():
            raise InputError(f"{where}: expected qid <tab> query")
        rows.append((where, qid.strip(), text))
    return rows
