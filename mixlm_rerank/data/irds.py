"""ir_datasets: documents, queries and judgments of a dataset, by its id."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InputError, MissingDependency, optional_import
from ..types import Document
from .topics import add_judgment

__all__ = ["IrDatasetsCorpus", "irds_qrels", "irds_splits", "irds_topics", "load_dataset"]


class IrDatasetsCorpus:
    """The documents of an ir_datasets dataset, by its id."""

    def __init__(self, dataset_id: str) -> None:
        self._id = dataset_id
        self._dataset = load_dataset(dataset_id)
        if not self._dataset.has_docs():
            raise InputError(f"the ir_datasets dataset {dataset_id!r} has no documents")

    def __iter__(self) -> Iterator[Document]:
        with _reading(self._id):
            for doc in self._dataset.docs_iter():
                title = getattr(doc, "title", "") or ""
                text = getattr(doc, "text", getattr(doc, "body", None))
                yield Document(str(doc.doc_id), text if isinstance(text, str) else doc.default_text(), title)


def load_dataset(dataset_id: str) -> Any:
    """The dataset itself. Raises InputError if ir_datasets knows none of that id."""
    try:
        return _ir_datasets(dataset_id).load(dataset_id)
    except KeyError:
        raise InputError(f"ir_datasets knows no dataset {dataset_id!r}") from None


def irds_topics(dataset_id: str) -> dict[str, str]:
    """qid -> text (the title of a TREC topic); it may be empty."""
    topics = {}
    with _reading(dataset_id):
        for query in load_dataset(dataset_id).queries_iter():
            text = query.default_text() if hasattr(query, "default_text") else query.text
            topics[str(query.query_id)] = text or ""
    return topics


def irds_qrels(dataset_id: str) -> dict[str, dict[str, int]]:
    """qid -> docid -> grade. Raises InputError for a document with two different grades for a query."""
    qrels: dict[str, dict[str, int]] = {}
    where = f"the judgments of {dataset_id!r}"
    with _reading(dataset_id):
        for row in load_dataset(dataset_id).qrels_iter():
            add_judgment(qrels, str(row.query_id), str(row.doc_id), int(row.relevance), where)
    return qrels


def irds_splits(dataset_id: str) -> list[str]:
    """What may follow ``dataset_id/`` so that there are judgments: ``["dev", "test", "train"]``."""
    under = f"{dataset_id}/"
    known = [name for name in _ir_datasets(dataset_id).registry if name.startswith(under)]
    return sorted(name.removeprefix(under) for name in known if load_dataset(name).has_qrels())


def _ir_datasets(dataset_id: str) -> Any:
    with optional_import(f"irds:{dataset_id} needs ir_datasets", "eval"):
        return importlib.import_module("ir_datasets")


@contextmanager
def _reading(dataset_id: str) -> Iterator[None]:
    """What ir_datasets raises where it cannot download, or finds files that it cannot read, as an error of ours."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:  # some formats need more than ir_datasets itself
        raise MissingDependency(f"ir_datasets cannot read {dataset_id!r}: {error}") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error.args[0] if error.args else error)[:200]
        raise InputError(
            f"ir_datasets cannot read {dataset_id!r} ({type(error).__name__}: {reason}): its page on ir-datasets.com "
            "says what it needs"
        ) from None
