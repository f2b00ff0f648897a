"""TREC's SGML: collections (``<DOC><DOCNO>``) and topics (``<top><num><title>``).

Reading is strict: a document that is not closed, or text between documents, is an error that names file and line.
(The reader of ir_datasets loses all documents of a file with CRLF line ends, and the last one if no line end follows.)
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from ..types import Document
from .lines import lines

__all__ = ["TrecCorpus", "trec_files", "trec_topics"]

TITLE = re.compile(r"<(HEADLINE|TITLE|HEAD|TTL|HL)(?:\s[^>]*)?>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
TEXT = re.compile(r"<(TEXT|LEADPARA|LP)(?:\s[^>]*)?>(.*?)</\1\s*>", re.IGNORECASE | re.DOTALL)
DOCNO = re.compile(r"<DOCNO>([^<]*)", re.IGNORECASE)
NOT_TEXT = re.compile(
    r"<!--.*?-->|<(DOCNO|DOCOLDNO|DOCID|DOCHDR|SCRIPT|STYLE)(?:\s[^>]*)?>.*?</\1\s*>", re.IGNORECASE | re.DOTALL
)
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[!?][^<>]*>")
# TREC's own topics say "Number: 051" where their judgments say 51.
NUM = re.compile(r"<num>\s*(?:Number:\s*(?:0+(?=\d))?)?([^<]*)", re.IGNORECASE)
TOPIC_TITLE = re.compile(r"<title>\s*(?:Topic:)?([^<]*)", re.IGNORECASE)


class TrecCorpus:
    """A file of ``<DOC><DOCNO>...</DOCNO>...</DOC>``, or a folder of such files at any depth; see :func:`lines`.

    Title: ``HEADLINE``, ``TITLE``, ``HEAD``, ``TTL``, ``HL``. Text: ``TEXT``, ``LEADPARA``, ``LP``; in a document
    without these, everything but the title. Tags are removed, entities resolved, and white space is collapsed.

    Iterating raises InputError for text outside of a document, a document that is not closed, and a document that has
    no docid or several.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[Document]:
        for file in trec_files(self.path) if self.path.is_dir() else [self.path]:
            for where, markup in _elements(file, "DOC"):
                yield _document(markup, where)


def trec_files(folder: Path) -> Iterator[Path]:
    """The files of a collection in a folder, sorted, except hidden ones and TREC's own notes (readme, readchg ...)."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and not name.lower().startswith(("readme", "readchg", "readfrcg")):
                yield Path(place, name)


def trec_topics(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield ("file, line N", qid, title) of every topic. Raises InputError for a topic without number or title."""
    for where, markup in _elements(path, "top"):
        number, title = NUM.search(markup), TOPIC_TITLE.search(markup)
        if number is None or title is None or not number[1].strip():
            raise InputError(f"{where}: expected <num> and <title> in this <top>")
        yield where, number[1].strip(), _plain(title[1])


def _elements(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield ("file, line N", content) of every ``<name>...</name>``. Text between these elements is an error."""
    opening = re.compile(rf"\s*<{name}(?:\s[^>]*)?>", re.IGNORECASE)
    closing = re.compile(rf"</{name}\s*>", re.IGNORECASE)
    held: list[str] | None = None
    where = ""
    for number, line in lines(path):
        while line.strip():
            if held is None:
                where = f"{path}, line {number}"
                start = opening.match(line)
                if start is None:
                    raise InputError(f"{where}: expected <{name}>, found {line.strip()[:40]!r}")
                held, line = [], line[start.end() :]
            elif (end := closing.search(line)) is None:
                held.append(line)
                break
            else:
                yield where, "\n".join([*held, line[: end.start()]])
                held, line = None, line[end.end() :]
    if held is not None:
        raise InputError(f"{where}: this <{name}> is not closed")


def _document(markup: str, where: str) -> Document:
    docids = [docid.strip() for docid in DOCNO.findall(markup)]
    if len(docids) != 1 or not docids[0]:
        found = f"{len(docids)} (is a </DOC> missing?)" if len(docids) > 1 else "none"
        raise InputError(f"{where}: expected one <DOCNO> in this <DOC>, found {found}")
    markup = NOT_TEXT.sub(" ", markup)
    titles = [held for _, held in TITLE.findall(markup)]
    texts = [held for _, held in TEXT.findall(markup)] or [TITLE.sub(" ", markup)]
    return Document(docids[0], _plain(" ".join(texts)), _plain(" ".join(titles)))


def _plain(markup: str) -> str:
    return " ".join(html.unescape(TAG.sub(" ", markup)).split())
