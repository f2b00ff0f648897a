"""A ranker's linear layers in int8: faster on a CPU, slightly less accurate, see ``docs/speed.md``."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from ...errors import InputError
from ..network import N, Network

__all__ = ["in_int8", "is_int8"]


def in_int8(model: N) -> N:
    """A copy of the model with an int8 ranker (PyTorch's dynamic quantisation): weights once, activations per pass.

    Item encoder, projector and readout are shared with ``model`` and stay float32, so a token index fits both.
    Activation scales are per forward pass, so scores vary slightly with the batch.

    Raises:
        InputError: the model is not on a CPU, or this PyTorch has no int8 layers for the processor.
    """
    if model.device.type != "cpu":
        raise InputError(f"int8 is for CPUs, and the model is on {model.device}: take bfloat16 there")
    twin = type(model)(model.config, model.item_encoder, copy.deepcopy(model.ranker), model.projector)
    twin.readout, twin.name = model.readout, model.name
    try:
        from torch.ao.quantization import quantize_dynamic

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its successor, torchao, pays off only with compilation
            quantize_dynamic(twin.ranker.backbone, {nn.Linear}, dtype=torch.qint8, inplace=True)
    except (ImportError, RuntimeError) as error:
        raise InputError(f"this PyTorch has no int8 layers for this processor ({error}): take float32") from None
    return twin.eval()


def is_int8(model: Network) -> bool:
    """Whether the ranker came out of :func:`in_int8`."""
    return any(type(module).__module__.startswith("torch.ao.nn.quantized") for module in model.ranker.modules())
