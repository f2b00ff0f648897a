"""The folders in which an evaluation keeps what its systems need for one collection: token indexes, built once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mixlm_rerank.data.corpus import identify
from mixlm_rerank.data.lines import write_json
from mixlm_rerank.errors import IndexDamaged, InputError
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.plan import checked
from mixlm_rerank.model import MixLM
from mixlm_rerank.systems.collections import Collection, SomeDocuments

__all__ = ["Workplace"]


@dataclass
class Workplace:
    """One collection, and the folders for its files."""

    collection: Collection
    folder: Path  # for rankings and runs
    indexes: Path  # for what is built from the documents; shared by several samples of a collection
    progress: bool = True
    own_index: TokenIndex | None = None  # an existing index of these documents; None: one is built
    _is_checked: bool = field(default=False, init=False, repr=False)

    def restricted(self, docids: Iterable[str]) -> Workplace:
        """A copy of this workplace whose collection has only the documents with these docids."""
        if self.collection.corpus is None:
            return self
        corpus = SomeDocuments(self.collection.corpus, frozenset(docids))
        return replace(self, collection=replace(self.collection, corpus=corpus))

    def index(self, model: MixLM) -> TokenIndex:
        """The token index of these documents under this model's item encoder; built or completed if needed.

        Raises InputError for a collection without documents. For ``own_index`` raises IndexMismatch if it belongs to
        another model, InputError if it lacks documents or holds them with another text.
        """
        if self.own_index is not None:
            return self._checked(self.own_index, model)
        corpus = self.collection.documents("a token index")
        path = self.indexes / f"tokens-{model.fingerprint}-{self._corpus_digest}"
        try:
            return TokenIndex(path)
        except (InputError, IndexDamaged):  # missing, or incomplete
            resumed = path.exists()
        started = time.perf_counter()
        index = TokenIndex.build(corpus, model, path, skip_empty=True, progress=self.progress)
        if not resumed:
            write_json(_record(index), {"build_seconds": time.perf_counter() - started})
        return index

    def _checked(self, index: TokenIndex, model: MixLM) -> TokenIndex:
        index.manifest.check_model(model, index.path)
        if index.manifest.of_vectors:
            lacking = [document.docid for document in self.collection.corpus or () if document.docid not in index]
            if lacking:
                raise InputError(f"{index} lacks the vectors of {len(lacking):,} documents ({lacking[0]!r} ...)")
        elif self.collection.corpus is not None and not self._is_checked:
            found = index.compare(checked(self.collection.corpus, model, skip_empty=True))
            if found.new or found.changed:
                raise InputError(
                    f"{index} lacks {found.new:,} documents of {self.collection.name} and holds {found.changed:,} with "
                    f"another text: bring it up to date with mixlm-rerank index sync {index} CORPUS"
                )
            self._is_checked = True
        return index

    def build_seconds(self, index: TokenIndex) -> float | None:
        """Seconds that building took, if it was done here without interruption."""
        record = _record(index)
        return float(json.loads(record.read_text(encoding="utf-8"))["build_seconds"]) if record.is_file() else None

    @cached_property
    def _corpus_digest(self) -> str:
        """Part of an index's name: the corpus in a folder may change, and then needs another index."""
        return identify(self.collection.documents("a token index")).digest[:8]


def _record(index: TokenIndex) -> Path:
    return index.path.with_name(f"{index.path.name}.json")
