"""Some of a backbone's layers as a backbone of their own, which shares its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import InputError

__all__ = ["FINAL_NORMS", "fixed", "layers_of", "span", "without_final_norm"]

FINAL_NORMS = ("norm", "final_norm")
Kind = TypeVar("Kind", bound=nn.Module)


def layers_of(backbone: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The layers and their name. Raises InputError for a backbone that does not keep them in one list."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == backbone.config.num_hidden_layers:
            return name, module
    raise InputError(f"{type(backbone).__name__} has no list of layers, so no documents can enter at one of them")


def span(backbone: PreTrainedModel, start: int, stop: int) -> PreTrainedModel:
    """Layers ``start`` to ``stop - 1``. What it takes as ``inputs_embeds``, it gives as ``last_hidden_state``: states.

    From layer 0 on it takes input embeddings; up to the last layer it ends with the final norm, if there is one. It is
    made anew at every forward pass: a view of the backbone as it is, in its mode, dtype and place.
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
    """Every layer finds ``states`` [n, length, d] again in the places ``where``, bool [n, length], whatever the one
    before has made of them.
    """

    def put_back(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return torch.where(where[:, :, None], states, given[0]), *given[1:]

    hooks = [layer.register_forward_pre_hook(put_back) for layer in layers_of(backbone)[1]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def without_final_norm(backbone: PreTrainedModel) -> PreTrainedModel:
    """In place: what it returns are then the states that the next layer would take."""
    for name in FINAL_NORMS:
        if name in backbone._modules:
            backbone._modules[name] = nn.Identity()
    return backbone


class _States(nn.Module):
    """In the place of input embeddings: states of a layer take no positions or types any more."""

    def forward(self, *given: Tensor | None, inputs_embeds: Tensor | None = None, **_: Tensor | None) -> Tensor:
        if inputs_embeds is not None:
            return inputs_embeds
        return next(one for one in given if one is not None and one.is_floating_point())


def _shallow(module: Kind) -> Kind:
    """The same parameters and children, in a module whose children can be exchanged."""
    twin = type(module).__new__(type(module))
    twin.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    return twin
