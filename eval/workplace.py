"""Where an evaluation keeps what its systems need for one collection: token indexes, built once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM

__all__ = ["Workplace"]


@dataclass
class Workplace:
    """One collection and a folder for it.

    Attributes:
        built: index folder name -> seconds that building it took, of those built here and now.
        opened: the index that a system opened last, for its size; None before.
    """

    collection: Collection
    folder: Path
    progress: bool = True
    built: dict[str, float] = field(default_factory=dict)
    opened: TokenIndex | None = None

    def index(self, model: MixLM) -> TokenIndex:
        """The token index of the collection under this model's item encoder; built if it is not there.

        Raises InputError for a collection without documents.
        """
        path = self.folder / f"tokens-{model.fingerprint}"
        try:
            self.opened = TokenIndex(path)
        except (InputError, OSError):
            self.opened = self._build(model, path)
        return self.opened

    def build_seconds(self) -> float | None:
        """Of the index opened last, if it was built in this run."""
        return None if self.opened is None else self.built.get(self.opened.path.name)

    def _build(self, model: MixLM, path: Path) -> TokenIndex:
        corpus = self.collection.corpus
        if corpus is None:
            raise InputError(f"{self.collection.name} has no documents to encode: give its corpus")
        started = time.perf_counter()
        index = TokenIndex.build(corpus, model, path, skip_empty=True, progress=self.progress)
        self.built[path.name] = time.perf_counter() - started
        return index
