"""Topics: qid -> query text, from TSV, BEIR JSONL, TREC SGML or TREC XML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .lines import file_in, id_in, json_lines, lines, shape
from .trec import trec_topics
from .trec_xml import xml_topics

__all__ = ["read_topics"]


def read_topics(source: str | Path) -> dict[str, str]:
    """Read ``qid <tab> query`` lines, a BEIR ``queries.jsonl`` or the folder that holds one, or TREC topics.

    Of TREC topics the query is the title (``<top><num><title>``) or, in XML (``<topic number="1">``), the ``query``,
    else the ``title``. Files may be compressed (see :func:`lines`); JSONL goes by its suffix or by a first line that
    begins with ``{``, TREC topics by one that begins with ``<``. A query may be empty: a reranker then keeps the order
    of the first stage.

    Raises InputError for a malformed line, or a qid that occurs twice.
    """
    path = Path(source)
    if path.is_dir():
        queries = file_in(path, "queries.jsonl")
        if queries is None:
            raise InputError(f"{path} is a folder without queries.jsonl")
        path = queries
    topics: dict[str, str] = {}
    for where, qid, text in _rows(path):
        if qid in topics:
            raise InputError(f"{where}: qid {qid!r} occurs twice")
        topics[qid] = text
    if not topics:
        raise InputError(f"{path} holds no queries")
    return topics


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    beginning = next((line.lstrip() for _, line in lines(path)), "")
    if {".json", ".jsonl"} & {suffix.lower() for suffix in path.suffixes} or beginning.startswith("{"):
        return _json_rows(path)
    if beginning.startswith("<"):
        return trec_topics(path) if re.match(r"<top[\s>]", beginning, re.IGNORECASE) else xml_topics(path)
    return _tsv_rows(path)


def _json_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for where, fields in json_lines(path):
        qid, text = id_in(fields, ("_id", "qid", "id")), fields.get("text", fields.get("query"))
        if qid is None or not isinstance(text, str):
            raise InputError(
                f'{where}: expected {{"_id": a string or an integer, "text": a string}}, found {shape(fields)}'
            )
        yield where, qid, text


def _tsv_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in lines(path):
        where = f"{path}, line {number}"
        qid, tab, text = line.partition("\t")
        if not tab or not qid.strip():
            raise InputError(f"{where}: expected qid <tab> query")
        yield where, qid.strip(), text
