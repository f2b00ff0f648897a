"""A real Lucene index of the small collection, and tokens of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex


@pytest.fixture(scope="session")
def lucene(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Lucene index of ``documents``."""
    from mixlm_rerank.integrations.lucene import build_lucene_index

    folder = tmp_path_factory.mktemp("lucene") / "index"
    build_lucene_index(documents, folder)
    return folder


@pytest.fixture(scope="session")
def searcher(lucene: Path) -> Any:
    from mixlm_rerank.integrations.lucene import open_searcher

    return open_searcher(lucene)


@pytest.fixture(scope="session")
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert")


@pytest.fixture(scope="session")
def reranker(model: MixLM, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    """A reranker whose token index holds all of ``documents``."""
    folder = tmp_path_factory.mktemp("tokens") / "all"
    return Reranker(model, TokenIndex.build(documents, model, folder, progress=False))
