"""Stage II: a full-text cross-encoder, by sentence-transformers' own trainer. Any ready-made one can replace it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from torch import nn

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.folder import under_torchrun
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.stage_trainer import STRICT, InOrder, StageTrainer, training_arguments, without_dropout

__all__ = ["CandidateLoss", "CrossEncoderPart", "Example", "examples_of", "train_cross_encoder"]

CandidateLoss = Literal["ListNet", "RankNet", "Lambda", "ListMLE", "PListMLE", "ADRMSE"]  # class names without "Loss"

# by default these two assume that candidates come in the ideal order, and ignore the targets
IN_ORDER = {name: {"respect_input_order": False} for name in ("ListMLE", "PListMLE")}


@dataclass(frozen=True, config=STRICT)
class CrossEncoderPart:
    """Stage II in a recipe: the cross-encoder it makes is ``{run}/cross-encoder/model``."""

    start: str  # a checkpoint; it gets a new head unless it has one
    members: dict[str, float] = field(default_factory=dict)  # learned from in addition to labels: as in TeacherPart
    labels: float = 10.0
    steps: int = Field(default=1000, ge=1)  # groups of ``queries`` queries with ``candidates`` documents each
    queries: int = Field(default=8, ge=1)
    candidates: int = Field(default=6, ge=2)
    learning_rate: float = 5e-5
    max_length: int = Field(default=256, ge=2)
    # A loss of sentence-transformers over a query's candidates. ListNet: KL of the softmax; RankNet and ADRMSE learn
    # the order of the targets; Lambda takes the targets as gains, negative ones as 0.
    loss: CandidateLoss = "ListNet"
    arguments: dict[str, Any] = field(default_factory=dict)  # of CrossEncoderTrainingArguments


class Example(NamedTuple):
    """One query with two candidates or more, and the score of each in log-odds."""

    query: str
    docs: list[str]
    labels: list[float]


def examples_of(mix: TrainingMix) -> list[Example]:
    """Every query of the mix with its own candidates, scored by the mix's teacher and labels."""
    examples = []
    for number in range(len(mix)):
        batch = mix[number]
        for query, own, targets in zip(batch.queries, batch.own, batch.teacher, strict=True):
            examples.append(Example(query, [batch.documents[row] for row in own], targets[own].tolist()))
    return examples


def train_cross_encoder(
    part: CrossEncoderPart,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    seed: int = 0,
    local_files_only: bool = False,
) -> Path:
    """Train on queries with their candidates; returns the folder of the model, ``model`` under ``folder``. Resumable.

    Raises InputError if the checkpoint cannot be read, an argument is unknown, there are no examples, or the installed
    sentence-transformers lacks the loss.
    """
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses

    if not examples:
        raise InputError("there is nothing to train a cross-encoder on")
    torch.manual_seed(seed)  # for a new head
    try:
        model = CrossEncoder(part.start, num_labels=1, max_length=part.max_length, local_files_only=local_files_only)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{part.start!r} is not a checkpoint that a cross-encoder can start from: {reason}") from None
    without_dropout(model)  # dropout makes a step 1.5 times as long on a CPU

    class Trainer(InOrder, StageTrainer, CrossEncoderTrainer):
        """Checkpoints are complete or absent. Examples of a collection are adjacent."""

    kind = getattr(losses, f"{part.loss}Loss", None)
    if kind is None:
        lacks = f"this sentence-transformers has no {part.loss}Loss"
        raise InputError(f"{lacks}: install a later one, or take another loss")
    few = model.device.type == "cpu" and not under_torchrun()  # DDP supports one pass per step
    pairs_at_once = 2 * part.queries if few else -1  # all
    trainer = Trainer(
        model=model,
        args=training_arguments(
            CrossEncoderTrainingArguments,
            part.arguments,
            output_dir=str(folder),
            per_device_train_batch_size=part.queries,
            learning_rate=part.learning_rate,
            num_train_epochs=1,
            seed=seed,
            ddp_find_unused_parameters=False,  # DDP does not look into mappings, which hold the scores: all seem unused
        ),
        train_dataset=Dataset.from_list([example._asdict() for example in examples]),
        loss=kind(model, **IN_ORDER.get(part.loss, {}), activation_fn=nn.Identity(), mini_batch_size=pairs_at_once),
    )
    return trainer.train_on(lambda draft: model.save_pretrained(str(draft)))
