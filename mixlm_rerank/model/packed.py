"""Lean forward passes of the commonest backbones, through their own modules.

Packed: only the score token's state is read. Everything else that the last layer would compute (the queries, the
feed-forward part of embedding tokens and prefix) has no reader: one sixth of a small model. Other backbones run whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from .attention import PackedLayout, PackedTiles, tiles_of
from .products import product

__all__ = ["PackedPass", "PlainPass", "packed_pass", "plain_pass"]

# Input embeddings [n, d], position ids [n], token types [n] and the layout of a flattened sequence -> the states of all
# score tokens, [items, d].
PackedPass = Callable[[Tensor, Tensor, Tensor, PackedLayout], Tensor]
# Input embeddings [b, length, d] and position ids [length] of texts of one length -> all their states, [b, length, d].
PlainPass = Callable[[Tensor, Tensor], Tensor]

BERTS = ("BertModel", "RobertaModel", "XLMRobertaModel")


def packed_pass(backbone: PreTrainedModel) -> PackedPass | None:
    """The packed pass of a backbone, or None if its layers are none of those known here."""
    kind = type(backbone).__name__
    if kind in BERTS:
        return _Bert(backbone)
    if kind in ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"):
        return _Decoder(backbone)
    return None


def plain_pass(backbone: PreTrainedModel) -> PlainPass | None:
    """The plain pass of a backbone, without a mask, or None if its layers are none of those that gain by it."""
    return _Bert(backbone).plain if type(backbone).__name__ in BERTS else None


class _Bert:
    """Layers that normalise after each part (BERT, 1810.04805)."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone

    def __call__(self, embeds: Tensor, positions: Tensor, token_types: Tensor, layout: PackedLayout) -> Tensor:
        backbone, tiles = self._backbone, tiles_of(layout, None, embeds.device)
        states = backbone.embeddings(
            inputs_embeds=embeds[None], position_ids=positions[None], token_type_ids=token_types[None]
        )[0]
        *layers, last = backbone.encoder.layer
        for layer in layers:
            states = self._layer(layer, states, states, tiles.attend)
        return self._layer(last, states[layout.score_rows(states.device)], states, tiles.attend_scores)

    def plain(self, embeds: Tensor, positions: Tensor) -> Tensor:
        batch, length, _ = embeds.shape

        def attend(*parts: Tensor, scale: float) -> Tensor:
            q, k, v = (part.unflatten(0, (batch, length)).transpose(1, 2) for part in parts)
            return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1)

        states = self._backbone.embeddings(inputs_embeds=embeds, position_ids=positions[None]).flatten(0, 1)
        for layer in self._backbone.encoder.layer:
            states = self._layer(layer, states, states, attend)
        every: Tensor = states.unflatten(0, (batch, length))
        return every

    @staticmethod
    def _layer(layer: Any, rows: Tensor, states: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        """New states of ``rows``, which see ``states``."""
        own, after, last = layer.attention.self, layer.attention.output, layer.output
        heads = (-1, own.num_attention_heads, own.attention_head_size)
        q, k, v = (
            product(part, source).view(heads)
            for part, source in ((own.query, rows), (own.key, states), (own.value, states))
        )
        attended = attend(q, k, v, scale=own.scaling).flatten(1)
        rows = after.LayerNorm(after.dropout(product(after.dense, attended)) + rows)
        inner = layer.intermediate.intermediate_act_fn(product(layer.intermediate.dense, rows))
        new: Tensor = last.LayerNorm(last.dropout(product(last.dense, inner)) + rows)
        return new


class _Decoder:
    """Layers that normalise before each part, with rotary positions (Llama, 2302.13971, and its kin)."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone

    def __call__(self, embeds: Tensor, positions: Tensor, token_types: Tensor, layout: PackedLayout) -> Tensor:
        backbone, states, wanted = self._backbone, embeds, layout.score_rows(embeds.device)
        rotation = tuple(part[0, :, None] for part in backbone.rotary_emb(embeds[None], positions[None]))
        of_scores = tuple(part[wanted] for part in rotation)
        *layers, last = backbone.layers
        for layer in layers:
            states = self._layer(layer, states, states, rotation, rotation, self._tiles(layer, layout, embeds).attend)
        attend = self._tiles(last, layout, embeds).attend_scores
        scores: Tensor = backbone.norm(self._layer(last, states[wanted], states, of_scores, rotation, attend))
        return scores

    def _tiles(self, layer: Any, layout: PackedLayout, embeds: Tensor) -> PackedTiles:
        window = getattr(layer.self_attn, "sliding_window", getattr(self._backbone.config, "sliding_window", None))
        return tiles_of(layout, window, embeds.device)

    @staticmethod
    def _layer(
        layer: Any,
        rows: Tensor,
        states: Tensor,
        of_rows: tuple[Tensor, ...],
        of_states: tuple[Tensor, ...],
        attend: Callable[..., Tensor],
    ) -> Tensor:
        """New states of ``rows``, which see ``states``; cosine and sine of the positions of both, [n, 1, head]."""
        own, same = layer.self_attn, rows is states
        normed = layer.input_layernorm(states)
        q = own.q_proj(normed if same else layer.input_layernorm(rows)).unflatten(-1, (-1, own.head_dim))
        k = own.k_proj(normed).unflatten(-1, (-1, own.head_dim))
        v = own.v_proj(normed).unflatten(-1, (-1, own.head_dim))
        if hasattr(own, "q_norm"):
            q, k = own.q_norm(q), own.k_norm(k)
        attended = attend(_rotated(q, *of_rows), _rotated(k, *of_states), v, own.scaling)
        rows = rows + own.o_proj(attended.flatten(1))
        new: Tensor = rows + layer.mlp(layer.post_attention_layernorm(rows))
        return new


def _rotated(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (2104.09864), halves as Llama has them. [n, heads, d] with [n, 1, d]."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine
