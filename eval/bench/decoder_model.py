"""A decoder of random weights in the shape of Qwen3, small enough for two cores, with a tokenizer of made-up words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import quiet
from mixlm_rerank.model.families import DecoderFamily

__all__ = ["DecoderShape", "decoder_mixlm", "made_tokenizer"]

EOS, PAD, UNK = "<eos>", "<pad>", "<unk>"
WORDS = [f"{a}{b}{c}" for a, b, c in product("bdfgklmnprst", "aeiou", "bdfgklmnprst")]  # bab, bad ...


@dataclass(frozen=True)
class DecoderShape:
    """Attributes:
    layers, hidden: of the backbone; the feed-forward part is three times as wide, heads have 64 dimensions.
    document, prefix: tokens of a document, and of prompt and query together.
    items: documents of a query.
    """

    layers: int = 4
    hidden: int = 512
    document: int = 900
    prefix: int = 60
    items: int = 50


def decoder_mixlm(shape: DecoderShape, folder: Path) -> MixLM:
    """A MixLM of one embedding token without residual: item encoder and ranker are the same random decoder."""
    tokenizer = made_tokenizer()
    config: Any = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=max(2, shape.hidden // 64),
        num_key_value_heads=max(1, shape.hidden // 128),
        head_dim=64,
        max_position_embeddings=max(2048, 2 * (shape.document + shape.prefix)),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with quiet():
        Qwen3ForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return MixLM.from_backbones(
        folder,
        folder,
        tokens=1,
        residual="none",
        max_query_tokens=shape.prefix,
        max_document_tokens=shape.document + 1,  # 1: the end token of the item encoder's template
        local_files_only=True,
    )


def made_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; the words of the prompt are in the vocabulary."""
    split = pre_tokenizers.Whitespace()
    prompt = DecoderFamily().prompt(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel())))
    known = [piece for piece, _ in split.pre_tokenize_str(prompt)]
    vocabulary = {
        word: number for number, word in enumerate(dict.fromkeys([PAD, UNK, EOS, "yes", "no", *known, *WORDS]))
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, eos_token=EOS)
