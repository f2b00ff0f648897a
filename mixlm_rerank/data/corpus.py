"""Corpora: documents that can be iterated again and again, from JSONL files, BEIR folders and ir_datasets."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError, MissingDependency
from ..types import Document
from .lines import json_lines

__all__ = ["Corpus", "IrDatasetsCorpus", "JsonlCorpus", "document_text", "open_corpus"]

DOCID_KEYS = ("_id", "id", "docid")
TEXT_KEYS = ("text", "contents", "segment", "body")


class Corpus(Protocol):
    """Anything that yields documents from the start each time it is iterated."""

    def __iter__(self) -> Iterator[Document]: ...


def document_text(fields: Mapping[str, Any], where: str) -> tuple[str, str]:
    """(title, text) of a document's JSON, under any of the names in use. Raises InputError, naming ``where``."""
    text = next((fields[key] for key in TEXT_KEYS if key in fields), None)
    title = fields.get("title") or ""
    if text is None:
        raise InputError(f"{where}: no text (expected one of the keys {', '.join(TEXT_KEYS)}; found {sorted(fields)})")
    if not isinstance(text, str) or not isinstance(title, str):
        raise InputError(f"{where}: text and title must be strings, not {type(text).__name__}, {type(title).__name__}")
    return title, text


class JsonlCorpus:
    """A JSONL file (or its gzip): ``_id``/``id``/``docid``, ``text``/``contents``/``segment``, optional ``title``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[Document]:
        for where, fields in json_lines(self.path):
            docid = next((fields[key] for key in DOCID_KEYS if key in fields), None)
            if not isinstance(docid, str | int) or isinstance(docid, bool):
                raise InputError(
                    f"{where}: no docid (expected one of the keys {', '.join(DOCID_KEYS)}; found {sorted(fields)})"
                )
            title, text = document_text(fields, where)
            yield Document(str(docid), text, title)


class IrDatasetsCorpus:
    """The documents of an ir_datasets dataset, by its id."""

    def __init__(self, dataset_id: str) -> None:
        try:
            ir_datasets = importlib.import_module("ir_datasets")
        except ImportError:
            raise MissingDependency(f'irds:{dataset_id} needs ir_datasets: pip install "mixlm-rerank[eval]"') from None
        try:
            self._dataset = ir_datasets.load(dataset_id)
        except KeyError:
            raise InputError(f"ir_datasets knows no dataset {dataset_id!r}") from None
        if not self._dataset.has_docs():
            raise InputError(f"the ir_datasets dataset {dataset_id!r} has no documents")

    def __iter__(self) -> Iterator[Document]:
        for doc in self._dataset.docs_iter():
            title = getattr(doc, "title", "") or ""
            text = getattr(doc, "text", getattr(doc, "body", None))
            yield Document(str(doc.doc_id), text if isinstance(text, str) else doc.default_text(), title)


def open_corpus(source: str) -> Corpus:
    """A corpus by name: a JSONL file, a BEIR folder (with ``corpus.jsonl``), or ``irds:DATASET``.

    Raises InputError if there is no such thing. (Pyserini indexes: ``mixlm_rerank.integrations.pyserini``.)
    """
    if source.startswith("irds:"):
        return IrDatasetsCorpus(source.removeprefix("irds:"))
    path = Path(source)
    if path.is_dir():
        for name in ("corpus.jsonl", "corpus.jsonl.gz"):
            if (path / name).is_file():
                return JsonlCorpus(path / name)
        raise InputError(f"{path} is a folder without corpus.jsonl")
    if not path.is_file():
        raise InputError(f"no corpus at {source!r} (a JSONL file, a BEIR folder, irds:DATASET, or lucene:INDEX)")
    return JsonlCorpus(path)
