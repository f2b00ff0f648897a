"""A small training set with a teacher that is easy to compute by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

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
    scores = np.stack([common_words([pool.query], [texts[d] for d in pool.docids])[0].numpy() for pool in pools])
    return Source("tiny", pools, texts, scores)
