"""Exported models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mixlm_rerank import MixLM
from mixlm_rerank.onnx import export

Exported = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """``exported(model)``: the folder that it was exported to, on one thread."""
    made: dict[int, tuple[MixLM, Path]] = {}

    def make(model: MixLM) -> Path:
        if id(model) not in made:
            folder = tmp_path_factory.mktemp("exported") / "model"
            export(model, folder)
            made[id(model)] = model, folder
        return made[id(model)][1]

    return make
