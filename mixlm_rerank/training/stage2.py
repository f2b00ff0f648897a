"""Stage II: a full-text cross-encoder, by sentence-transformers' own trainer. Any ready one can take its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.checkpoints import SafeCheckpoints, last_checkpoint

__all__ = ["Example", "train_cross_encoder"]


@dataclass(frozen=True)
class Example:
    """One query with some candidates.

    Attributes:
        texts: of the candidates, at least two.
        labels: soft grade of each in [0, 1]; NaN for unjudged.
        teacher: score of each in log-odds; NaN where there is none.
    """

    query: str
    texts: list[str]
    labels: list[float]
    teacher: list[float]


def train_cross_encoder(
    start: str | Path,
    examples: Sequence[Example],
    folder: str | Path,
    *,
    batch_size: int = 8,
    learning_rate: float = 5e-5,
    max_length: int = 256,
    label_scale: float = 10.0,
    seed: int = 0,
    **arguments: Any,
) -> Path:
    """Train on queries with their candidates, listwise (ListNet), and save the model; resumable.

    The target is ``softmax(teacher + label_scale * label)`` over a query's candidates, where either is known.

    Args:
        start: a checkpoint; a new head is put on it unless it has one.
        examples: with labels, teacher scores, or both.
        folder: of checkpoints; the model itself is put into ``model`` under it.
        batch_size: queries a step.
        label_scale: log-odds that a label of 1 stands for.
        arguments: of CrossEncoderTrainingArguments (``bf16=True``, ``save_steps=200`` ...).

    Returns:
        The folder of the model.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    folder = Path(folder)
    model = CrossEncoder(str(start), num_labels=1, max_length=max_length)

    class SafeTrainer(SafeCheckpoints, CrossEncoderTrainer):
        """Checkpoints are whole or not there."""

    trainer = SafeTrainer(
        model=model,
        args=CrossEncoderTrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=batch_size,
            learning_rate=learning_rate,
            num_train_epochs=1,
            seed=seed,
            **arguments,
        ),
        train_dataset=_dataset(examples, label_scale),
        loss=ListNetLoss(model, activation_fn=nn.Identity(), mini_batch_size=batch_size * 2),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


def _dataset(examples: Sequence[Example], label_scale: float) -> Any:
    from datasets import Dataset

    if not examples:
        raise InputError("there is nothing to train a cross-encoder on")

    return Dataset.from_list(
        [{"query": one.query, "docs": one.texts, "labels": _targets(one, label_scale)} for one in examples]
    )


def _targets(example: Example, label_scale: float) -> list[float]:
    """Unknown parts count 0. (NaN is the one number that is not equal to itself.)"""
    pairs = zip(example.teacher, example.labels, strict=True)
    return [
        (score if score == score else 0.0) + label_scale * (label if label == label else 0.0) for score, label in pairs
    ]
