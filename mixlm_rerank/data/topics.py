"""Topics (qid -> query text; TSV, BEIR JSONL, TREC SGML or XML) and judgments (qid -> docid -> grade; TREC or BEIR)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ..errors import InputError
from .lines import beginning, file_in, id_in, json_lines, lines, shape
from .trec import trec_topics

__all__ = ["add_judgment", "read_qrels", "read_topics"]

QRELS_HEADERS = ("query-id", "query_id", "qid")


def read_topics(source: str | Path) -> dict[str, str]:
    """Read ``qid <tab> query`` lines, a BEIR ``queries.jsonl`` or the folder that holds one, or TREC topics.

    The query of a TREC topic is its title (``<top><num><title>``) or, in XML (``<topic number="1">``, or an element
    ``<number>`` in it), the ``query``, else the ``title``. Files may be compressed (see :func:`lines`). JSONL is
    recognised by its suffix or by a first line that begins with ``{``, TREC topics by one that begins with ``<``. A
    query may be empty: a reranker then keeps the order of the first stage.

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


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read TREC (``qid 0 docid grade``) or BEIR (``query-id <tab> corpus-id <tab> score``, with a header) judgments.

    Grades below 0 (-2 is spam in TREC's web tracks) are kept: measures treat them as not relevant, like 0.

    Raises InputError for a malformed line, or a document judged twice for a query with different grades.
    """
    qrels: dict[str, dict[str, int]] = {}
    separator = None
    for number, line in lines(path):
        where = f"{path}, line {number}"
        columns = line.strip().split(separator)
        if number == 1 and columns[0] in QRELS_HEADERS:
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
    """Add a judgment to ``qrels``. Raises InputError if the document has another grade for the same query."""
    if qrels.setdefault(qid, {}).setdefault(docid, grade) != grade:
        raise InputError(f"{where}: document {docid!r} has two different grades for query {qid!r}")


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    first = beginning(path)
    if {".json", ".jsonl"} & {suffix.lower() for suffix in path.suffixes} or first.startswith("{"):
        return _json_rows(path)
    if first.startswith("<"):
        return trec_topics(path) if re.match(r"<top[\s>]", first, re.IGNORECASE) else _xml_rows(path)
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


def _xml_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Rows of XML topics, as in the web tracks (2009 to 2014), TREC-COVID and health misinformation."""
    expected = 'expected <topic number="..."> with a <query> or <title>, or TREC\'s older <top><num><title>'
    held = dict(lines(path))
    try:
        root = ElementTree.fromstring("\n".join(held.get(number, "") for number in range(1, max(held) + 1)))
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not valid XML ({error}); {expected}") from None
    topics = list(root.iter("topic"))
    if not topics:
        raise InputError(f"{path} holds no topics but <{root.tag}>; {expected}")
    for place, topic in enumerate(topics, 1):
        where = f"{path}, topic {place}"
        number = topic.get("number") or topic.findtext("number") or ""
        query = next((found for name in ("query", "title") if (found := topic.find(name)) is not None), None)
        if query is None or not number.strip():
            names = ", ".join(dict.fromkeys(f"<{child.tag}>" for child in topic)) or "no elements"
            raise InputError(f"{where} has {names}; {expected}")
        yield where, number.strip(), " ".join("".join(query.itertext()).split())
