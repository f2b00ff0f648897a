"""Rerank with a language model that reads the query as text and documents as a few precomputed embedding tokens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import MixLMError
from .types import Candidate, Document, ScoredDoc

if TYPE_CHECKING:
    from .index import TokenIndex
    from .model import MixLM
    from .reranker import Reranker

__all__ = ["Candidate", "Document", "MixLM", "MixLMError", "Reranker", "ScoredDoc", "TokenIndex"]

# Imported on first use: they import torch and transformers, seconds that --help need not wait for.
_LAZY = {"MixLM": ".model", "Reranker": ".reranker", "TokenIndex": ".index"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mixlm-rerank")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
