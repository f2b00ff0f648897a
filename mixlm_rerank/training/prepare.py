"""Getting a model ready for stage III: frozen parts, adapters, no dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.model import MixLM

if TYPE_CHECKING:
    from mixlm_rerank.training.stage3 import JointOptions

__all__ = ["prepare"]


def prepare(model: MixLM, options: JointOptions, seed: int) -> None:
    """Freeze what has a learning rate of 0, add adapters, and switch dropout off, in place.

    The teacher regularises, and without dropout a resumed run needs no state of a random generator. Weights become
    float32: in half precision small steps round away (``bf16`` is for the arithmetic alone).

    Raises InputError for adapters that PEFT refuses, and for checkpoint_activations with fixed_documents.
    """
    if options.checkpoint_activations and model.config.fixed_documents:
        raise InputError("checkpoint_activations is not possible with fixed_documents: leave one of them out")
    model.float()
    for part, rate in zip((model.item_encoder, model.ranker, model.readout), options.learning_rates, strict=True):
        part.requires_grad_(rate > 0)
    if options.lora is not None:
        torch.manual_seed(seed)
        for part in model.readers.values():
            if any(weight.requires_grad for weight in part.parameters()):
                _adapt(cast(nn.Module, part.backbone), options.lora)
    for backbone in (part.backbone for part in model.readers.values()):
        for module in backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            for name, value in vars(module).items():  # of attention, in decoders: a number
                if "drop" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
        if options.freeze_embeddings:
            backbone.get_input_embeddings().weight.requires_grad_(False)
        if options.checkpoint_activations:
            backbone.gradient_checkpointing_enable()


def _adapt(backbone: nn.Module, lora: dict[str, Any]) -> None:
    """Put adapters into its layers; nothing else of it is trained. Raises InputError for options that PEFT refuses."""
    with optional_import("LoRA needs PEFT", "train"):
        from peft import LoraConfig, inject_adapter_in_model
    try:
        inject_adapter_in_model(LoraConfig(**{"target_modules": "all-linear", **lora}), backbone)
    except (TypeError, ValueError) as error:
        raise InputError(f"lora: {' '.join(str(error).split())}") from None
