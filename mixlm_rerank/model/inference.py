"""How a model scores and encodes, whatever mode its caller left it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

__all__ = ["inference", "scoring"]

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """No dropout, no autocast, no gradients: they would make scores random or coarse. Afterwards all is as it was.

    A model in training mode must be used by one thread at a time: its mode belongs to all of them.
    """
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    device = next(module.parameters()).device.type
    try:
        with torch.inference_mode(), torch.autocast(device, enabled=False):
            yield
    finally:
        for part in training:
            part.training = True


def scoring(
    function: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Result]:
    """Run under :func:`inference` of the first argument: a module, or what holds one as ``_model``."""

    @wraps(function)
    def guarded(owner: Owner, /, *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        module = owner if isinstance(owner, nn.Module) else owner._model  # type: ignore[attr-defined]
        with inference(module):
            return function(owner, *arguments, **named)

    return guarded
