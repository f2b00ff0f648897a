"""Where models and indexes come from: opened when a server starts, and again when it reloads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixlm_rerank.index import open_store
from mixlm_rerank.model import MixLM
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.search import FirstStage
from mixlm_rerank.serving.warm_up import warm_up

__all__ = ["Sources"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """Folders, URLs and hub ids by the name that they are served under.

    ``lucene``: by the name of the token index that holds the same documents. The rest: see ``MixLM.from_pretrained``.
    """

    models: Mapping[str, str]
    indexes: Mapping[str, str] = field(default_factory=dict)
    lucene: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    dtype: str | None = None
    offline: bool = False

    def open(self) -> Catalogue:
        """Raises what a model or an index raises that cannot be opened, and IndexMismatch."""
        indexes = {name: open_store(where) for name, where in self.indexes.items()}
        models = {name: self._model(name, source) for name, source in self.models.items()}
        first_stages = {name: FirstStage(Path(folder)) for name, folder in self.lucene.items()}
        return Catalogue(models, indexes, first_stages)

    def _model(self, name: str, source: str) -> MixLM:
        model = MixLM.from_pretrained(source, device=self.device, dtype=self.dtype, local_files_only=self.offline)
        if model.device.type == "cuda":
            _log.warning("%s: compiling for the GPU, which takes a minute", name)
            warm_up(model)
        return model
