"""Stage II: a full-text cross-encoder, by sentence-transformers' own trainer. Any ready one can take its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.checkpoints import MODEL, keep_model, last_checkpoint, training_arguments
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.processes import under_torchrun
from mixlm_rerank.training.stage_trainer import StageTrainer

__all__ = ["CandidateLoss", "Example", "examples_of", "train_cross_encoder"]

CandidateLoss = Literal["ListNet", "RankNet", "Lambda", "ListMLE", "PListMLE", "ADRMSE"]  # each with Loss: its class


# by default these two assume that candidates come in the ideal order, and ignore the targets
IN_ORDER = {name: {"respect_input_order": False} for name in ("ListMLE", "PListMLE")}


@dataclass(frozen=True)
class Example:
    """One query with some candidates.

    Attributes:
        texts: of the candidates, at least two.
        targets: score of each in log-odds.
    """

    query: str
    texts: list[str]
    targets: list[float]


def examples_of(mix: TrainingMix) -> list[Example]:
    """Every query of the mix with its own candidates, under the mix's teacher and labels."""
    examples = []
    for number in range(len(mix)):
        batch = mix[number]
        for query, own, targets in zip(batch.queries, batch.own, batch.teacher, strict=True):
            examples.append(Example(query, [batch.documents[row] for row in own], targets[own].tolist()))
    return examples


def train_cross_encoder(
    start: str | Path,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    batch_size: int = 8,
    learning_rate: float = 5e-5,
    max_length: int = 256,
    loss: CandidateLoss = "ListNet",
    seed: int = 0,
    local_files_only: bool = False,
    **arguments: Any,
) -> Path:
    """Train on queries with their candidates, and save the model; resumable.

    Args:
        start: a checkpoint; a new head is put on it unless it has one.
        folder: of checkpoints; the model itself is put into ``model`` under it.
        batch_size: queries a step.
        loss: over a query's candidates, of sentence-transformers. ListNet: KL of the softmax; RankNet and ADRMSE learn
            the order of the targets; for Lambda they are gains, negative ones 0.
        arguments: of CrossEncoderTrainingArguments (``bf16=True``, ``save_steps=200`` ...).

    Returns:
        The folder of the model.

    Raises:
        InputError: the checkpoint cannot be read, an argument is unknown, there are no examples, or this
            sentence-transformers has not the loss.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments, losses

    folder = Path(folder)
    torch.manual_seed(seed)  # for a new head
    try:
        model = CrossEncoder(str(start), num_labels=1, max_length=max_length, local_files_only=local_files_only)
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{str(start)!r} is not a checkpoint that a cross-encoder can start from: {reason}") from None

    class SafeTrainer(StageTrainer, CrossEncoderTrainer):
        """Checkpoints are whole or not there. Examples come in their own order, in which those of a collection, and so
        texts of like length, stand together.
        """

        def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *others: Any, **more: Any) -> Any:
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    kind = getattr(losses, f"{loss}Loss", None)
    if kind is None:
        raise InputError(f"this sentence-transformers has no {loss}Loss: install a later one, or take another loss")
    few = model.device.type == "cpu" and not under_torchrun()  # DDP knows one pass a step
    pairs_at_once = 2 * batch_size if few else -1  # all
    trainer = SafeTrainer(
        model=model,
        args=training_arguments(
            CrossEncoderTrainingArguments,
            arguments,
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            num_train_epochs=1,
            seed=seed,
            ddp_find_unused_parameters=False,  # DDP looks into no mapping, where scores are: all would be unused
        ),
        train_dataset=_dataset(examples),
        loss=kind(model, **IN_ORDER.get(loss, {}), activation_fn=nn.Identity(), mini_batch_size=pairs_at_once),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    trainer.save_state()
    keep_model(folder, lambda draft: model.save_pretrained(str(draft)))
    return folder / MODEL


def _dataset(examples: Sequence[Example]) -> Any:
    from datasets import Dataset

    if not examples:
        raise InputError("there is nothing to train a cross-encoder on")
    return Dataset.from_list([{"query": one.query, "docs": one.texts, "labels": one.targets} for one in examples])
