"""Counted operations against PyTorch's own counter, on tiny models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, DynamicCache, LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model

from mixlm_rerank.eval.bench.machine import Operations

SHARED = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "attn_implementation": "eager",  # products that the counter sees
}
DECODER = {**SHARED, "num_key_value_heads": 2, "eos_token_id": 1, "bos_token_id": None, "pad_token_id": 0}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SHARED), add_pooling_layer=False),
    "llama": lambda: LlamaModel(LlamaConfig(**DECODER)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**DECODER, head_dim=16)),  # heads wider than hidden size / heads
}


def counted(run: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", MODELS)
def test_whole_sequences(kind: str) -> None:
    model = MODELS[kind]().eval()
    ids = torch.ones(3, 17, dtype=torch.long)
    found = counted(lambda: model(ids))
    # rotary positions are products too: a hundredth
    assert Operations.of(model).whole(17, 3) == pytest.approx(found, rel=0 if kind == "bert" else 0.01)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_shared_prefix(kind: str) -> None:
    """A prefix of 13 once, then 5 items of 3 behind its keys and values."""
    model = MODELS[kind]().eval()

    def run() -> None:
        once, cache = DynamicCache(), DynamicCache()
        model(torch.ones(1, 13, dtype=torch.long), past_key_values=once)
        for number, layer in enumerate(once.layers):
            cache.update(layer.keys.expand(5, -1, -1, -1), layer.values.expand(5, -1, -1, -1), number)
        model(torch.ones(5, 3, dtype=torch.long), past_key_values=cache)

    expected = Operations.of(model).shared(prefix=13, item=3, items=5)
    assert expected == pytest.approx(counted(run), rel=0.01)


def test_by_hand() -> None:
    """One layer, hidden 2, feed-forward 3: 4 matrices of 2 x 2, two of 2 x 3; 2 operations a weight and position."""
    config = BertConfig(hidden_size=2, num_hidden_layers=1, num_attention_heads=1, intermediate_size=3, vocab_size=9)
    operations = Operations.of(BertModel(config))  # with its pooler, which is no layer
    linear, pair = 2 * (4 * 4 + 2 * 6), 2 * 2 * 2
    assert operations.whole(length=5, sequences=7) == 7 * (5 * linear + 25 * pair)
    assert operations.shared(prefix=5, item=2, items=7) == 19 * linear + (25 + 7 * 2 * 7) * pair
