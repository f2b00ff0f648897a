"""The models that a recipe names: where training starts, and the teacher's own encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.model.precision import bf16_pays, weights_to
from mixlm_rerank.training.recipe import ModelPart, Recipe

__all__ = ["frozen_encoder", "start"]


def start(part: ModelPart, offline: bool, seed: int) -> MixLM:
    """In float32, on a GPU if there is one; weights that are new are drawn by ``seed``.

    Raises InputError if no start is named, or it cannot be read.
    """
    if part.start is not None:
        model = MixLM.from_pretrained(part.start, dtype="float32", local_files_only=offline)
        if model.config.vectors:
            raise InputError(
                f"{part.start} takes vectors of your own, not texts: train it with mixlm-rerank distill --vectors"
            )
        return model
    if part.item_encoder is None or part.ranker is None:
        raise InputError("the recipe's model needs start (a saved MixLM), or item_encoder and ranker (checkpoints)")
    return _new(part.item_encoder, part.ranker, part.options, offline, seed)


def frozen_encoder(recipe: Recipe, offline: bool) -> ItemEncoder:
    """The item encoder as it is at the start, a copy of its own: what is trained must not teach itself."""
    encoder = start(recipe.model, offline, recipe.seed).item_encoder.eval()
    on_cpu = encoder.backbone.device.type == "cpu"
    if on_cpu and recipe.joint.bf16 and bf16_pays("cpu"):
        weights_to(encoder, torch.bfloat16)
    return encoder


def _new(item_encoder: str, ranker: str, options: Mapping[str, Any], offline: bool, seed: int) -> MixLM:
    torch.manual_seed(seed)  # for projector and memory tokens
    try:
        model = MixLM.from_backbones(item_encoder, ranker, local_files_only=offline, **options)
    except TypeError as error:
        raise InputError(f"the recipe's model.options: {error}") from None
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
