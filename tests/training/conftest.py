"""What the tests of training share: small training sets, a corpus, the file of a recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from mixlm_rerank.training.mix import Source
from mixlm_rerank.training.pools import Pool

WORDS = "dog cat moon bread mail rock earth water salt yeast flour man sleeps barks fears".split()


def common_words(queries: Sequence[str], documents: Sequence[str]) -> Tensor:
    """A teacher: how many words a query and a document share."""
    return torch.tensor([[float(len(set(q.split()) & set(d.split()))) for d in documents] for q in queries])


@pytest.fixture
def pictures() -> None:
    """For tests that look at the pictures of a training."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere none are drawn: each takes longer than the steps that it shows."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("mixlm_rerank.training.trainer.plot_history", lambda *_: None)


@pytest.fixture(scope="session")
def source() -> Source:
    """24 queries of two words, 6 candidates each."""
    draw = np.random.default_rng(0)
    texts = {f"d{number}": " ".join([*draw.choice(WORDS, size=2 + number % 7), str(number)]) for number in range(40)}
    pools = []
    for number in range(24):
        docids = [f"d{row}" for row in draw.choice(40, size=6, replace=False)]
        pools.append(
            Pool(
                f"q{number}",
                " ".join([*draw.choice(WORDS, size=2), f"q{number}"]),
                docids,
                {docids[0]: 1},
            )
        )
    scores = np.stack([common_words([pool.query], [texts[d] for d in pool.docids])[0].numpy() for pool in pools])
    return Source("tiny", pools, texts, scores)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = [{"_id": f"d{n}", "text": " ".join(draw.choice(WORDS, size=9)) + "."} for n in range(60)]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def recipe(beir: Path, checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``recipe(steps=3)``: the file of a recipe that trains on the tiny collection's dev split."""
    folder = str(checkpoint("bert", hidden_dropout_prob=0.0))

    def write(**changes: Any) -> Path:
        values: dict[str, Any] = {
            "model": {
                "item_encoder": folder,
                "ranker": folder,
                "options": {"tokens": 4, "max_query_tokens": 64, "max_document_tokens": 40},
            },
            "collections": [{"source": "{data}", "split": "dev"}],
            "joint": {"budgets": [1, 4], "save_every": 2, "log_every": 1},
            "steps": 2,
            "queries": 2,
            "candidates": 3,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    return write
