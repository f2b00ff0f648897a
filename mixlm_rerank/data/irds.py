"""ir_datasets: documents, queries and judgments of a dataset, by its id."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError, MissingDependency, optional_import
from ..types import Document
from .topics import add_judgment

__all__ = ["IrDataset"]


class IrDataset:
    """A dataset of ir_datasets; iterating it yields its documents. ``held`` is the object that ir_datasets loads.

    Raises InputError for an unknown id, and when it is read, if ir_datasets cannot download or read a file.
    """

    def __init__(self, dataset_id: str) -> None:
        with optional_import(f"irds:{dataset_id} needs ir_datasets", "eval"):
            library = importlib.import_module("ir_datasets")
        self.id, self._registry = dataset_id, library.registry
        try:
            self.held = library.load(dataset_id)
        except KeyError:
            raise InputError(f"ir_datasets knows no dataset {dataset_id!r}") from None

    def __iter__(self) -> Iterator[Document]:
        with self._reading():
            for doc in self.held.docs_iter():
                title = getattr(doc, "title", "") or ""
                text = getattr(doc, "text", getattr(doc, "body", None))
                yield Document(str(doc.doc_id), text if isinstance(text, str) else doc.default_text(), title)

    def topics(self) -> dict[str, str]:
        """qid -> text (the title of a TREC topic); it may be empty."""
        topics = {}
        with self._reading():
            for query in self.held.queries_iter():
                text = query.default_text() if hasattr(query, "default_text") else query.text
                topics[str(query.query_id)] = text or ""
        return topics

    def qrels(self) -> dict[str, dict[str, int]]:
        """qid -> docid -> grade. Raises InputError for a document with two different grades for a query."""
        qrels: dict[str, dict[str, int]] = {}
        with self._reading():
            for row in self.held.qrels_iter():
                where = f"the judgments of {self.id!r}"
                add_judgment(qrels, str(row.query_id), str(row.doc_id), int(row.relevance), where)
        return qrels

    def splits(self) -> list[str]:
        """Names of the splits with judgments, that is of datasets ``ID/SPLIT``: ``["dev", "test", "train"]``."""
        under = [name for name in self._registry if name.startswith(f"{self.id}/")]
        return sorted(name.removeprefix(f"{self.id}/") for name in under if IrDataset(name).held.has_qrels())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn errors of ir_datasets (failed download, unreadable file) into errors of ours."""
        try:
            yield
        except InputError:
            raise
        except ImportError as error:  # some formats need further packages
            raise MissingDependency(f"ir_datasets cannot read {self.id!r}: {error}") from None
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error.args[0] if error.args else error)[:200]
            raise InputError(
                f"ir_datasets cannot read {self.id!r} ({type(error).__name__}: {reason}): its page on ir-datasets.com "
                "says what it needs"
            ) from None
