"""Shapes of small rerankers whose speed is published, with random weights: figures that people know, on this machine.

Speed does not depend on the weights. Published by their authors, pairs a second on a desktop i7-13700K in float32:
ettin-reranker-17m 267, ettin-reranker-32m 92.5, MiniLM-L12 76 (MiniLM-L6, the default model's own shape: 144).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, BertConfig, ModernBertConfig

__all__ = ["SHAPES", "Yardstick"]

# ModernBERT's layers of the Ettin suite (2507.11412), and BERT's of MiniLM (2002.10957)
SHAPES: dict[str, tuple[Any, dict[str, int]]] = {  # name -> class of the configuration, sizes
    "shape of ettin-reranker-17m": (
        ModernBertConfig,
        {"hidden_size": 256, "num_hidden_layers": 7, "num_attention_heads": 4, "intermediate_size": 384},
    ),
    "shape of ettin-reranker-32m": (
        ModernBertConfig,
        {"hidden_size": 384, "num_hidden_layers": 10, "num_attention_heads": 6, "intermediate_size": 576},
    ),
    "shape of MiniLM-L12": (
        BertConfig,
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
}


class Yardstick:
    """A cross-encoder of one of ``SHAPES``, in float32, that reads as many tokens as the tokenizer gives."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        kind, sizes = SHAPES[name]
        special = {f"{part}_token_id": None for part in ("bos", "eos", "cls", "sep")}
        options = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id or 0, "num_labels": 1}
        torch.manual_seed(0)
        config = kind(**sizes, **options, **special, max_position_embeddings=1024)
        self.model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
        self._tokenizer = tokenizer

    @torch.inference_mode()
    def __call__(self, query: str, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """Logits [n], in batches of texts of like length."""
        found = np.empty(len(texts), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            pairs = [query] * len(rows), [texts[row] for row in rows]
            batch = self._tokenizer(*pairs, padding=True, truncation=True, max_length=1024, return_tensors="pt")
            given = {name: batch[name] for name in ("input_ids", "attention_mask")}
            found[rows] = self.model(**given).logits[:, 0].numpy()
        return found
