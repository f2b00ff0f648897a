"""Lean forward passes of the commonest backbones, through their own modules.

Packed: only the score token's state is read. Everything else that the last layer would compute (the queries, the
feed-forward part of embedding tokens and prefix) has no reader: one sixth of a small model. Plain: texts of one length,
without a mask. Other backbones run whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from .attention import PackedAttention, PackedLayout, attention_of
from .products import product

__all__ = ["DecoderPass", "PackedPass", "PlainPass", "packed_pass", "plain_pass"]

BERTS = ("BertModel", "RobertaModel", "XLMRobertaModel")


class PackedPass(Protocol):
    """The states of all score tokens of a flattened sequence."""

    def attention(self, layout: PackedLayout, device: torch.device) -> PackedAttention:
        """How it attends under a layout."""
        ...

    def __call__(
        self, embeds: Tensor, positions: Tensor, token_types: Tensor, score_rows: Tensor, attention: PackedAttention
    ) -> Tensor:
        """What enters the first layer, [n, d]; position ids, token types, [n]; rows of score tokens -> [items, d]."""
        ...


class PlainPass(Protocol):
    """Texts of one length, without a mask."""

    def __call__(self, embeds: Tensor, positions: Tensor, stop: int | None = None) -> Tensor:
        """Texts of the first segment through layers 0 to ``stop - 1``; None: all.

        Input embeddings [b, length, d], position ids [length] -> all states, [b, length, d].
        """
        ...

    def first_states(self, states: Tensor, start: int, added: Tensor | None, changing: int | None = None) -> Tensor:
        """States that enter layer ``start``, [b, length, d] -> the final state of the first of each text, [b, d].

        Args:
            added: to the logits of all attention to each of them, [b, length].
            changing: only so many of them, the first, change from layer to layer; None: all.
        """
        ...


def packed_pass(backbone: PreTrainedModel, first: int = 0) -> PackedPass | None:
    """The packed pass of a backbone, or None if its layers are none of those known here.

    ``first``: the layer that it begins with, of a decoder.
    """
    kind = type(backbone).__name__
    if kind in BERTS:
        return _Bert(backbone)
    if kind in ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"):
        windows = {_window(layer, backbone.config) for layer in cast(Any, backbone.layers)}
        return DecoderPass(backbone, windows.pop(), first) if len(windows) == 1 else None
    return None


def plain_pass(backbone: PreTrainedModel) -> PlainPass | None:
    """The plain pass of a backbone, or None if its layers are none of those that gain by it."""
    return _PlainBert(backbone) if type(backbone).__name__ in BERTS else None


class _Bert:
    """Layers that normalise after each part (BERT, 1810.04805)."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone

    def attention(self, layout: PackedLayout, device: torch.device) -> PackedAttention:
        config = self._backbone.config
        return attention_of(layout, None, device, config.hidden_size // config.num_attention_heads)

    def __call__(
        self, embeds: Tensor, positions: Tensor, token_types: Tensor, score_rows: Tensor, attention: PackedAttention
    ) -> Tensor:
        places = {"position_ids": positions[None], "token_type_ids": token_types[None]}
        states = self._backbone.embeddings(inputs_embeds=embeds[None], **places)[0]
        *layers, last = self._backbone.encoder.layer
        for layer in layers:
            states = _bert_layer(layer, states, states, attention.attend)
        return _bert_layer(last, states[score_rows], states, attention.attend_scores)


class _PlainBert:
    """The same layers, over texts of one length."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone

    def __call__(self, embeds: Tensor, positions: Tensor, stop: int | None = None) -> Tensor:
        states = self._backbone.embeddings(inputs_embeds=embeds, position_ids=positions[None])
        every: Tensor = self._through(self._backbone.encoder.layer[:stop], states)
        return every

    def first_states(self, states: Tensor, start: int, added: Tensor | None, changing: int | None = None) -> Tensor:
        *layers, last = self._backbone.encoder.layer[start:]
        attend, fixed = _attention_within(states.shape[0], added), states[:, changing:] if changing else states[:, :0]
        states = states[:, :changing]
        for layer in layers:
            states = _bert_layer(layer, states.flatten(0, 1), _behind(states, fixed), attend).view(states.shape)
        return _bert_layer(last, states[:, 0], _behind(states, fixed), attend)

    @staticmethod
    def _through(layers: Any, states: Tensor) -> Tensor:
        flat, attend = states.flatten(0, 1), _attention_within(states.shape[0], None)
        for layer in layers:
            flat = _bert_layer(layer, flat, flat, attend)
        return flat.view(states.shape)


def _behind(states: Tensor, fixed: Tensor) -> Tensor:
    """[b, n, d], [b, m, d] -> [b * (n + m), d]."""
    return torch.cat([states, fixed], dim=1).flatten(0, 1) if fixed.shape[1] else states.flatten(0, 1)


def _attention_within(texts: int, added: Tensor | None) -> Callable[..., Tensor]:
    """Each text attends to itself. [texts * length, heads, d] each. ``added``: to logits of keys, [texts, length]."""
    mask = None if added is None else added[:, None, None]

    def attend(*parts: Tensor, scale: float) -> Tensor:
        q, k, v = (part.unflatten(0, (texts, -1)).transpose(1, 2) for part in parts)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2).flatten(0, 1)

    return attend


def _bert_layer(layer: Any, rows: Tensor, states: Tensor, attend: Callable[..., Tensor]) -> Tensor:
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


class DecoderPass:
    """Layers that normalise before each part, with rotary positions (Llama, 2302.13971, and its kin)."""

    def __init__(self, backbone: Any, window: int | None, first: int = 0) -> None:
        self._backbone = backbone
        self.window = window
        self._first = first
        self._before, self._after = _before_attention, _after_attention

    def attention(self, layout: PackedLayout, device: torch.device) -> PackedAttention:
        return attention_of(layout, self.window, device, self._backbone.layers[0].self_attn.head_dim)

    def compile(self) -> None:
        """Fuse what stands between matrix products and attention: the same code for all layers and lengths."""
        self._before = torch.compile(_before_attention, dynamic=True)
        self._after = torch.compile(_after_attention, dynamic=True)

    def __call__(
        self, embeds: Tensor, positions: Tensor, token_types: Tensor, score_rows: Tensor, attention: PackedAttention
    ) -> Tensor:
        backbone, states = self._backbone, embeds
        rotation = tuple(part[0, :, None] for part in backbone.rotary_emb(embeds[None], positions[None]))
        of_scores = tuple(part[score_rows] for part in rotation)
        *layers, last = backbone.layers[self._first :]
        for layer in layers:
            parts = self._before(layer, states, states, rotation, rotation)
            states = self._after(layer, states, attention.attend(*parts, layer.self_attn.scaling))
        rows = states[score_rows]
        parts = self._before(last, rows, states, of_scores, rotation)
        attended = attention.attend_scores(*parts, last.self_attn.scaling)
        scores: Tensor = backbone.norm(self._after(last, rows, attended))
        return scores


Rotation = tuple[Tensor, ...]  # cosine and sine of positions, [n, 1, head]


def _before_attention(
    layer: Any, rows: Tensor, states: Tensor, of_rows: Rotation, of_states: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of ``rows``, keys and values of ``states``. [n, d] -> [n, heads, head] each."""
    own, same = layer.self_attn, rows is states
    normed = layer.input_layernorm(states)
    q = own.q_proj(normed if same else layer.input_layernorm(rows)).unflatten(-1, (-1, own.head_dim))
    k = own.k_proj(normed).unflatten(-1, (-1, own.head_dim))
    v = own.v_proj(normed).unflatten(-1, (-1, own.head_dim))
    if hasattr(own, "q_norm"):
        q, k = own.q_norm(q), own.k_norm(k)
    return _rotated(q, *of_rows), _rotated(k, *of_states), v


def _after_attention(layer: Any, rows: Tensor, attended: Tensor) -> Tensor:
    """New states of ``rows``. [n, d], [n, heads, head] -> [n, d]."""
    rows = rows + layer.self_attn.o_proj(attended.flatten(1))
    new: Tensor = rows + layer.mlp(layer.post_attention_layernorm(rows))
    return new


def _rotated(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (2104.09864), halves as Llama has them. [n, heads, d] with [n, 1, d]."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine


def _window(layer: Any, config: Any) -> int | None:
    """The sliding window of a decoder's layer, if it has one."""
    window: int | None = getattr(layer.self_attn, "sliding_window", getattr(config, "sliding_window", None))
    return window
