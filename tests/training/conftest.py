"""A small training set with a teacher that is easy to compute by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from mixlm_rerank import MixLM
from mixlm_rerank.training.mix import Source
from mixlm_rerank.training.pools import Pool

WORDS = "dog cat moon bread mail rock earth water salt yeast flour man sleeps barks fears".split()


def common_words(queries: Sequence[str], documents: Sequence[str]) -> Tensor:
    """A teacher: how many words a query and a document share."""
    return torch.tensor([[float(len(set(q.split()) & set(d.split()))) for d in documents] for q in queries])


@pytest.fixture
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
    return Source("tiny", pools, texts, draw.normal(size=(24, 8)), common_words)


@pytest.fixture
def fresh(checkpoint: Callable[..., object]) -> Callable[..., MixLM]:
    """``fresh("bert")``: a tiny MixLM of one's own, to be trained."""

    def make(architecture: str = "bert", **options: object) -> MixLM:
        folder = checkpoint(architecture, **{"hidden_dropout_prob": 0.0} if architecture == "bert" else {})
        options = {"max_query_tokens": 64, "max_document_tokens": 40} | options
        torch.manual_seed(1)
        return MixLM.from_backbones(folder, folder, **options)  # type: ignore[arg-type]

    return make
