"""Lean forward passes of the most common backbones, through their own modules.

Packed: only the score token's state is read, so in the last layer only score tokens need queries and feed-forward;
skipping the rest saves a sixth of a small model. Plain: texts of one length, without a mask. Other backbones run whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..families import position_offset
from .layout import PackedAttention

__all__ = ["BertPass", "DecoderPass", "PackedAttention", "packed_pass", "plain_pass", "product"]

# Matrix products of at most this many rows are split by hand: on two cores, with 384 features, 20 to 35% less time for
# 8 to 40 rows, 14% for 128, none for 220.
MOST_ROWS = 192
FEWEST_FEATURES = 64  # per core

Rotation = tuple[Tensor, ...]  # cosine and sine of positions, [n, 1, head]


def packed_pass(backbone: PreTrainedModel, first: int = 0) -> BertPass | DecoderPass | None:
    """The packed pass of a backbone, or None if its layers are not among those known here.

    ``first``: for decoders, the layer at which the pass begins.
    """
    if type(backbone).__name__ not in ("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model"):
        return plain_pass(backbone)
    of_all = getattr(backbone.config, "sliding_window", None)
    windows = {getattr(layer.self_attn, "sliding_window", of_all) for layer in cast(Any, backbone.layers)}
    return DecoderPass(backbone, windows.pop(), first) if len(windows) == 1 else None


def plain_pass(backbone: PreTrainedModel) -> BertPass | None:
    """The plain pass of a backbone, or None if its layers would not gain from it."""
    return BertPass(backbone) if type(backbone).__name__ in ("BertModel", "RobertaModel", "XLMRobertaModel") else None


class BertPass:
    """Layers that normalise after each part (BERT, 1810.04805)."""

    window = None

    def __init__(self, backbone: Any) -> None:
        self._backbone, self._first_position = backbone, position_offset(backbone)
        self.head = backbone.config.hidden_size // backbone.config.num_attention_heads

    def __call__(
        self, embeds: Tensor, positions: Tensor, token_types: Tensor, score_rows: Tensor, attention: PackedAttention
    ) -> Tensor:
        """The states of all score tokens of a flattened sequence.

        Input of the first layer, [n, d]; position ids, token types, [n]; rows of score tokens -> [items, d].
        """
        places = {"position_ids": positions[None], "token_type_ids": token_types[None]}
        states = self._backbone.embeddings(inputs_embeds=embeds[None], **places)[0]
        *layers, last = self._backbone.encoder.layer
        for layer in layers:
            states = _bert_layer(layer, states, states, attention.attend)
        return _bert_layer(last, states[score_rows], states, attention.attend_scores)

    def states(self, embeds: Tensor, stop: int | None = None) -> Tensor:
        """Run first-segment texts of one length through layers 0 to ``stop - 1``; None: all layers.

        Input embeddings -> all states, [b, length, d].
        """
        places = torch.arange(embeds.shape[1], device=embeds.device) + self._first_position
        states: Tensor = self._backbone.embeddings(inputs_embeds=embeds, position_ids=places[None])
        flat, attend = states.flatten(0, 1), _attention_within(states.shape[0], None)
        for layer in self._backbone.encoder.layer[:stop]:
            flat = _bert_layer(layer, flat, flat, attend)
        return flat.view(states.shape)

    def first_states(self, states: Tensor, start: int, added: Tensor | None, changing: int | None = None) -> Tensor:
        """States that enter layer ``start``, [b, length, d] -> the final state of each text's first position, [b, d].

        Args:
            added: values added to the logits of all attention to each position, [b, length].
            changing: only this many positions, the first, change from layer to layer; None: all.
        """
        *layers, last = self._backbone.encoder.layer[start:]
        attend, fixed = _attention_within(states.shape[0], added), states[:, changing:] if changing else states[:, :0]
        states = states[:, :changing]
        for layer in layers:
            states = _bert_layer(layer, states.flatten(0, 1), _behind(states, fixed), attend).view(states.shape)
        return _bert_layer(last, states[:, 0], _behind(states, fixed), attend)


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
    """New states of ``rows``, which attend to ``states``."""
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


def product(layer: nn.Module, rows: Tensor) -> Tensor:
    """``layer(rows)``, float [n, in] -> [n, out], up to rounding.

    A query has one or two dozen rows. CPU libraries split a matrix product among cores by rows, which is inefficient
    for so few, so here every core computes an equal part of the output features. Only scoring is split like this: what
    is stored in a token index must not depend on the number of cores.
    """
    scoring = not torch.is_grad_enabled() and not torch.compiler.is_exporting()
    if not scoring or type(layer) is not nn.Linear or rows.device.type != "cpu" or rows.dtype != torch.float32:
        return layer(rows)  # type: ignore[no-any-return]
    cores, features = torch.get_num_threads(), layer.out_features
    if cores == 1 or features % cores or features // cores < FEWEST_FEATURES or len(rows) > MOST_ROWS:
        return layer(rows)  # type: ignore[no-any-return]
    weight = layer.weight.view(cores, features // cores, -1).transpose(1, 2)
    bias = 0 if layer.bias is None else layer.bias.view(cores, 1, -1)
    parts = torch.bmm(rows.expand(cores, -1, -1), weight) + bias
    return parts.transpose(0, 1).reshape(-1, features)


class DecoderPass:
    """Layers that normalise before each part, with rotary positions (Llama, 2302.13971, and its kin)."""

    def __init__(self, backbone: Any, window: int | None, first: int = 0) -> None:
        self._backbone, self._first = backbone, first
        self.window, self.head = window, backbone.layers[0].self_attn.head_dim
        self._before, self._after = _before_attention, _after_attention

    def compile(self) -> None:
        """Fuse the operations between matrix products and attention; all layers and lengths share the code."""
        self._before = torch.compile(_before_attention, dynamic=True)
        self._after = torch.compile(_after_attention, dynamic=True)

    def __call__(
        self, embeds: Tensor, positions: Tensor, token_types: Tensor, score_rows: Tensor, attention: PackedAttention
    ) -> Tensor:
        """See :meth:`BertPass.__call__`."""
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
    """Rotary positions (2104.09864), in two halves as in Llama. [n, heads, d] with [n, 1, d]."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat([-second, first], dim=-1) * sine
