"""Decoders of random weights in the shape of Qwen3: how fast they are does not depend on their weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import assemble
from mixlm_rerank.model.config import MixLMConfig
from mixlm_rerank.model.families import DecoderFamily

__all__ = ["PAPER", "QWEN3", "DecoderShape", "random_mixlm", "saved_mixlm"]

EOS, PAD, UNK = "<eos>", "<pad>", "<unk>"
WORDS = [f"{a}{b}{c}" for a, b, c in product("bdfgklmnprst", "aeiou", "bdfgklmnprst")]  # bab, bad ...

FULL_TEXT, FULL_CACHED = "full text", "full text, prefix once"
MIXLM_ALONE, MIXLM = "MixLM, without prefix sharing", "MixLM"
# Items a second on one H100, 0.6B parameters, texts of about 900 tokens (MixLM, 2512.07846).
PAPER = {FULL_TEXT: 270.0, FULL_CACHED: 290.0, MIXLM_ALONE: 3_000.0, MIXLM: 22_000.0}


@dataclass(frozen=True)
class DecoderShape:
    """Attributes:
    layers, hidden, heads, key_heads, head: of the ranker; its feed-forward part is three times as wide.
    encoder_layers: of the item encoder, which scoring does not need.
    prefix: tokens of prompt and query together.
    """

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head: int
    encoder_layers: int = 1
    prefix: int = 60


QWEN3 = DecoderShape(layers=28, hidden=1024, heads=16, key_heads=8, head=128)  # of 0.6B parameters: the paper's


def random_mixlm(shape: DecoderShape, tokens: int, document: int, device: str = "cpu") -> MixLM:
    """A MixLM in float32 without residual. ``document``: tokens of the longest."""
    tokenizer, family = _tokenizer(), DecoderFamily()
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


def saved_mixlm(folder: Path, shape: DecoderShape = QWEN3) -> Path:
    """One that another process can load, of one token and documents of 150; made if it is not there."""
    if not (folder / "config.json").is_file():  # it comes last
        device = "cuda" if torch.cuda.is_available() else "cpu"  # a minute on two cores
        random_mixlm(shape, 1, 150, device).save_pretrained(folder, half=True)
    return folder


def _config(shape: DecoderShape, layers: int, vocabulary: int, document: int) -> Any:
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head,
        max_position_embeddings=shape.prefix + document + 64,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; the words of the prompt are in the vocabulary."""
    split = pre_tokenizers.Whitespace()
    prompt = DecoderFamily().prompt(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel())))
    known = [piece for piece, _ in split.pre_tokenize_str(prompt)]
    words = dict.fromkeys([PAD, UNK, EOS, "yes", "no", *known, *WORDS])
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, eos_token=EOS)
