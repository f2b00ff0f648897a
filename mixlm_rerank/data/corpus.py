"""Corpora: documents that can be iterated repeatedly, from files of the common formats or from ir_datasets.

A corpus is identified by its document count and an order-independent hash, which tie whatever was built from it to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..types import Document
from .irds import IrDataset
from .lines import beginning, file_in, id_in, json_lines, lines, shape
from .trec import TrecCorpus, trec_files

__all__ = ["Corpus", "CorpusIdentity", "JsonlCorpus", "document_text", "identify", "open_corpus"]

DOCID_KEYS = ("_id", "id", "docid")
TEXT_KEYS = ("text", "contents", "segment", "body")
TSV_COLUMNS = {2: "2 (docid, text)", 4: "4 (docid, url, title, body)"}


class Corpus(Protocol):
    """Anything that yields documents from the start each time it is iterated."""

    def __iter__(self) -> Iterator[Document]: ...


def document_text(fields: Mapping[str, Any], where: str) -> tuple[str, str]:
    """(title, text) of a document's JSON object, under any accepted key. Raises InputError, naming ``where``."""
    text = next((fields[key] for key in TEXT_KEYS if fields.get(key) is not None), None)
    title = fields.get("title") or ""
    if not isinstance(text, str) or not isinstance(title, str):
        raise InputError(
            f"{where}: expected a text (a string under one of {', '.join(TEXT_KEYS)}) and perhaps a title (a string); "
            f"found {shape(fields)}"
        )
    return title, text


class JsonlCorpus:
    """A JSONL file: ``_id``/``id``/``docid``, ``text``/``contents``/``segment``/``body``, optional ``title``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[Document]:
        for where, fields in json_lines(self.path):
            docid = id_in(fields, DOCID_KEYS)
            if docid is None:
                raise InputError(
                    f"{where}: expected a docid (a string or an integer under one of {', '.join(DOCID_KEYS)}); "
                    f"found {shape(fields)}"
                )
            title, text = document_text(fields, where)
            yield Document(docid, text, title)


class TsvCorpus:
    """An MS MARCO file: ``docid <tab> text`` or ``docid <tab> url <tab> title <tab> body``, the same on every line.

    Iterating raises InputError for a line with another number of columns and for an empty docid.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[Document]:
        width = 0
        for number, line in lines(self.path):
            where = f"{self.path}, line {number}"
            columns = line.split("\t")
            width = width or len(columns)
            if len(columns) != width or width not in TSV_COLUMNS:
                expected = TSV_COLUMNS.get(width) or " or ".join(TSV_COLUMNS.values())
                raise InputError(f"{where}: {len(columns)} columns, expected {expected}")
            docid = columns[0].strip()
            if not docid:
                raise InputError(f"{where}: no docid in the first column")
            yield Document(docid, columns[-1], columns[2] if width == 4 else "")


def open_corpus(source: str) -> Corpus:
    """A corpus by name: ``irds:DATASET``, a BEIR folder (with ``corpus.jsonl``), or a file or folder of these formats:

    - JSONL (:class:`JsonlCorpus`);
    - TSV (:class:`TsvCorpus`);
    - TREC's SGML (``<DOC><DOCNO>``), a file or a folder of them.

    Files may be compressed (see :func:`lines`). The suffixes .jsonl, .json and .tsv decide the format; for other files
    the first characters do.
    Raises InputError if there is no such corpus. (Pyserini indexes: ``mixlm_rerank.integrations.pyserini``.)
    """
    if source.startswith("irds:"):
        dataset = IrDataset(source.removeprefix("irds:"))
        if not dataset.held.has_docs():
            raise InputError(f"the ir_datasets dataset {dataset.id!r} has no documents")
        return dataset
    path = Path(source)
    if path.is_dir():
        if (corpus := file_in(path, "corpus.jsonl")) is not None:
            return JsonlCorpus(corpus)
        if any(path.glob("segments_*")):
            raise InputError(f"{path} is a Lucene index: to read its documents, name it lucene:{path}")
        beginnings = map(beginning, trec_files(path))
        if not next(filter(None, beginnings), "").startswith("<"):
            raise InputError(f"{path} is a folder without corpus.jsonl, and not one of TREC files (<DOC>) either")
        return TrecCorpus(path)
    if not path.is_file():
        raise InputError(
            f"no corpus at {source!r} (a JSONL file, a BEIR folder, irds:DATASET, lucene:INDEX, or MS MARCO TSV or "
            "TREC SGML files)"
        )
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if suffixes & {".jsonl", ".json"}:
        return JsonlCorpus(path)
    if ".tsv" in suffixes:
        return TsvCorpus(path)
    first = beginning(path)
    if first.startswith("<"):
        return TrecCorpus(path)
    return TsvCorpus(path) if "\t" in first and not first.startswith("{") else JsonlCorpus(path)


@dataclass
class CorpusIdentity:
    """Document count and hash of a corpus. Documents without text do not count: no first stage can find them.

    >>> a, b = Document("1", "dog"), Document("2", "cat")
    >>> identify([a, b]) == identify([b, Document("3", " "), a]) != identify([a])
    True
    """

    documents: int = 0
    total: int = 0  # sum of the documents' hashes, so that their order does not matter

    def add(self, document: Document) -> None:
        if not document.content.strip():
            return
        fields = (document.docid, document.title, document.text)
        encoded = [field.encode("utf-8", "replace") for field in fields]
        digest = hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in encoded))
        self.documents += 1
        self.total = (self.total + int.from_bytes(digest.digest(), "big")) % 2**256

    @property
    def digest(self) -> str:
        """Hash of the corpus, 64 hexadecimal digits."""
        return f"{self.total:064x}"


def identify(documents: Iterable[Document]) -> CorpusIdentity:
    """Identity of a corpus, which is read once in full."""
    identity = CorpusIdentity()
    for document in documents:
        identity.add(document)
    return identity
