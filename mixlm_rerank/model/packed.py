"""Packed forward passes of the commonest backbones: their own modules, but the last layer runs where it is read alone.

Only the score token's state is read. Everything else that the last layer would compute (the queries, the feed-forward
part of embedding tokens and prefix) has no reader: one sixth of a small model. Other backbones run whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .attention import PackedLayout, PackedTiles, tiles_of

__all__ = ["PackedPass", "packed_pass"]

# Input embeddings [n, d], position ids [n], token types [n] and the layout of a flattened sequence -> the states of all
# score tokens, [items, d].
PackedPass = Callable[[Tensor, Tensor, Tensor, PackedLayout], Tensor]


def packed_pass(backbone: PreTrainedModel) -> PackedPass | None:
    """The packed pass of a backbone, or None if its layers are none of those known here."""
    kind = type(backbone).__name__
    if kind in ("BertModel", "RobertaModel", "XLMRobertaModel"):
        return _Bert(backbone)
    if kind in ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"):
        return _Decoder(backbone)
    return None


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

    @staticmethod
    def _layer(layer: Any, rows: Tensor, states: Tensor, attend: Callable[..., Tensor]) -> Tensor:
        """New states of ``rows``, which see ``states``."""
        own = layer.attention.self
        heads = (-1, own.num_attention_heads, own.attention_head_size)
        q, k, v = own.query(rows).view(heads), own.key(states).view(heads), own.value(states).view(heads)
        rows = layer.attention.output(attend(q, k, v, own.scaling).flatten(1), rows)
        new: Tensor = layer.output(layer.intermediate(rows), rows)
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
