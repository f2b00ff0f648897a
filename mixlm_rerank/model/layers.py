"""Operations on the layers of any backbone: a span of them as its own backbone, and what positions may see."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

from ..errors import InputError

__all__ = ["FINAL_NORMS", "fixed", "layers_of", "span", "take_added_logits", "may_attend", "window_of"]
__all__ += ["without_final_norm"]

FINAL_NORMS = ("norm", "final_norm")
Kind = TypeVar("Kind", bound=nn.Module)


def layers_of(backbone: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The layers and their name. Raises InputError for a backbone that does not keep them in one list."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == backbone.config.num_hidden_layers:
            return name, module
    raise InputError(f"{type(backbone).__name__} has no list of layers, so no documents can enter at one of them")


def span(backbone: PreTrainedModel, start: int, stop: int) -> PreTrainedModel:
    """Layers ``start`` to ``stop - 1`` as a backbone: ``inputs_embeds`` are states, as is ``last_hidden_state``.

    A span from layer 0 takes input embeddings; a span up to the last layer ends with the final norm, if there is one.
    Make a new span for every forward pass: it is a view of the backbone in its current mode, dtype and device.
    """
    name, layers = layers_of(backbone)
    part = _shallow(backbone)
    part.config = copy.copy(backbone.config)
    part.config.num_hidden_layers = stop - start
    if getattr(part.config, "layer_types", None):
        part.config.layer_types = part.config.layer_types[start:stop]
    *path, last = name.split(".")
    holder: nn.Module = part
    for step in path:
        holder._modules[step] = inner = _shallow(cast(nn.Module, getattr(holder, step)))
        holder = inner
    holder._modules[last] = layers[start:stop]
    if start and "embeddings" in part._modules:
        part._modules["embeddings"] = _States()
    return part if stop == len(layers) else without_final_norm(part)


@contextmanager
def fixed(backbone: PreTrainedModel, states: Tensor, where: Tensor) -> Iterator[None]:
    """Before every layer, reset the positions ``where``, bool [n, length], to ``states`` [n, length, d]."""

    def put_back(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return torch.where(where[:, :, None], states, given[0]), *given[1:]

    hooks = [layer.register_forward_pre_hook(put_back) for layer in layers_of(backbone)[1]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def without_final_norm(backbone: PreTrainedModel) -> PreTrainedModel:
    """Remove the final norm in place: the backbone then returns the states that a next layer would take."""
    for name in FINAL_NORMS:
        if name in backbone._modules:
            backbone._modules[name] = nn.Identity()
    return backbone


class _States(nn.Module):
    """Replaces input embeddings: states of a layer take no position or type embeddings."""

    def forward(self, *given: Tensor | None, inputs_embeds: Tensor | None = None, **_: Tensor | None) -> Tensor:
        if inputs_embeds is not None:
            return inputs_embeds
        return next(one for one in given if one is not None and one.is_floating_point())


def _shallow(module: Kind) -> Kind:
    """A copy of the module with the same parameters and children, whose children can be replaced."""
    twin = type(module).__new__(type(module))
    twin.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    return twin


def may_attend(queries: Tensor, keys: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """Which key positions each query position may see. [..., n], [..., m] -> bool [..., n, m].

    ``window``: a position sees only positions at a smaller distance (sliding-window layers).
    """
    distance = queries[..., :, None] - keys[..., None, :]
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return mask if window is None else mask & (distance.abs() < window)


def window_of(config: Any, layer_type: str, *, causal: bool) -> int | None:
    """The sliding window of layers of one type, for :func:`may_attend`. Raises InputError if it is unknown."""
    every_layer = getattr(config, "layer_types", None) is None and getattr(config, "use_sliding_window", True)
    if layer_type == "full_attention" and not (every_layer and getattr(config, "sliding_window", None)):
        return None  # models like Mistral name no layer types: their window, if any, is that of all layers
    window: int | None = getattr(config, "sliding_window", None)
    if window is None:
        raise InputError(f"MixLM does not know what positions see in layers of type {layer_type!r}")
    return window if causal else window + 1  # Transformers: causal exclusive, bidirectional inclusive


def take_added_logits(backbone: PreTrainedModel) -> None:
    """Make all attention of a DeBERTa (2006.03654) accept a float mask, in place; other backbones already do."""
    for module in backbone.modules():
        if type(module) is DisentangledSelfAttention:
            module.__class__ = _AddingAttention


class _AddingAttention(DisentangledSelfAttention):
    """Same weights and logits. The mask, [b, 1, length, length], is bool, or float that is added to the logits."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        heads = self.num_attention_heads
        projections: tuple[Any, ...] = (self.query_proj, self.key_proj, self.value_proj)
        q, k, v = (self.transpose_for_scores(part(hidden_states), heads) for part in projections)
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        added = attention_mask
        if not added.is_floating_point():
            # finite, because padding rows see nothing
            added = torch.zeros_like(added, dtype=q.dtype).masked_fill(~added.bool(), torch.finfo(q.dtype).min)
        if self.relative_attention:
            of_positions: Any = self.disentangled_attention_bias
            bias = of_positions(q, k, relative_pos, self.pos_dropout(rel_embeddings), terms)
            added = added + bias.unflatten(0, (-1, heads))
        q, k, v = (part.unflatten(0, (-1, heads)) for part in (q, k, v))
        dropout = self.dropout.p if self.training else 0.0
        scale = (self.attention_head_size * terms) ** -0.5
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout, scale=scale)
        return attended.transpose(1, 2).flatten(2), None
