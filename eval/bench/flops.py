"""Floating-point operations of a forward pass, counted: linear layers and attention, a multiply-add as two.

Left out: embeddings, norms, softmax, activations, heads (about a hundredth). Attention is counted without masks: every
position against every key that is laid before it, as libraries compute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixlm_rerank.errors import InputError

__all__ = ["Shape", "shape_of", "shared_prefix_flops", "whole_flops"]

BERTS = ("bert", "roberta", "xlm-roberta")
DECODERS = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Shape:
    """What the operations of a backbone depend on.

    Attributes:
        query_width, key_width: of all heads together; keys and values may have fewer heads.
        gated: whether the feed-forward part has three matrices (Llama) and not two (BERT).
    """

    layers: int
    hidden: int
    intermediate: int
    query_width: int
    key_width: int
    gated: bool

    def linear(self, positions: int) -> float:
        """Operations of all linear layers on so many positions."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.key_width
        feed_forward = (3 if self.gated else 2) * self.hidden * self.intermediate
        return 2.0 * self.layers * positions * (attention + feed_forward)

    def attention(self, pairs: int) -> float:
        """Operations of all attention on so many pairs of a query and a key: one product each for logits and values."""
        return 4.0 * self.layers * pairs * self.query_width


def shape_of(config: Any) -> Shape:
    """The shape of a BERT or a Llama-like decoder, from its configuration. Raises InputError for any other."""
    kind = config.model_type
    if kind not in (*BERTS, *DECODERS):
        raise InputError(f"the operations of a {kind} backbone cannot be counted: {', '.join((*BERTS, *DECODERS))} can")
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        query_width=heads * head,
        key_width=key_heads * head,
        gated=kind in DECODERS,
    )


def whole_flops(shape: Shape, length: int, sequences: int) -> float:
    """Sequences of ``length`` positions, each with its own prefix: full text, or MixLM without prefix sharing."""
    return sequences * (shape.linear(length) + shape.attention(length * length))


def shared_prefix_flops(shape: Shape, prefix: int, item: int, items: int) -> float:
    """A prefix once, and items of ``item`` positions that see it and themselves: MixLM (item = k + 1).

    The plain count, every position through every layer: a pass that leaves out what has no reader in the last layer
    does less.
    """
    own = shape.linear(item) + shape.attention(item * (prefix + item))
    return shape.linear(prefix) + shape.attention(prefix * prefix) + items * own
