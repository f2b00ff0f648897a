"""Random weights in the shape of Qwen3-0.6B, made where they run: how fast they are does not depend on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from mixlm_rerank.eval.bench.decoder_model import made_tokenizer
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import assemble
from mixlm_rerank.model.config import MixLMConfig
from mixlm_rerank.model.families import DecoderFamily

__all__ = ["GpuShape", "gpu_mixlm", "saved_gpu_mixlm"]


@dataclass(frozen=True)
class GpuShape:
    """Attributes:
    layers, hidden, intermediate, heads, key_heads, head: of the ranker.
    encoder_layers: of the item encoder, which scoring does not need.
    prefix: tokens of prompt and query together.
    """

    layers: int = 28
    hidden: int = 1024
    intermediate: int = 3072
    heads: int = 16
    key_heads: int = 8
    head: int = 128
    encoder_layers: int = 1
    prefix: int = 60


def gpu_mixlm(shape: GpuShape, tokens: int, document: int, device: torch.device) -> MixLM:
    """A MixLM in float32 without residual. ``document``: the longest in tokens."""
    tokenizer, family = made_tokenizer(), DecoderFamily()
    torch.manual_seed(0)
    with torch.device(device):
        encoder, ranker = (
            Qwen3Model(_config(shape, layers, len(tokenizer), document))
            for layers in (shape.encoder_layers, shape.layers)
        )
    config = MixLMConfig(
        tokens=tokens,
        pooling="last",
        prompt=family.prompt(tokenizer),
        score_token=family.score_token(tokenizer),
        template=family.text_template(tokenizer),
        residual="none",
        max_query_tokens=shape.prefix,
        max_document_tokens=document,
    )
    model = assemble(MixLM, config, encoder, tokenizer, ranker, tokenizer, family).to(device).eval()
    nn.init.normal_(model.readout.score.weight, std=shape.hidden**-0.5)
    return model


def saved_gpu_mixlm(folder: Path, shape: GpuShape = GpuShape(), tokens: int = 1, document: int = 150) -> Path:
    """The same as a folder that another process can load, made if it is not there."""
    if not (folder / "config.json").is_file():  # it comes last
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # a minute on two cores
        gpu_mixlm(shape, tokens, document, device).save_pretrained(folder, half=True)
    return folder


def _config(shape: GpuShape, layers: int, vocabulary: int, document: int) -> Any:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head,
        max_position_embeddings=shape.prefix + document + 64,
    )
