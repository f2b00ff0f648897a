"""Stage III as one call: train a MixLM on a mix of collections, watched on development queries, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.training.batches import only
from mixlm_rerank.training.history import plot_history
from mixlm_rerank.training.joint import JointObjective, LossWeights
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.trainer import JointTrainer

__all__ = ["JointOptions", "train_joint"]

BEST, HISTORY, PLOT = "best", "history.json", "history.png"


@dataclass(frozen=True)
class JointOptions:
    """How to train.

    Attributes:
        phases: weights of the losses, see :class:`JointTrainer`.
        budgets: token budgets that are to serve.
        learning_rates: of item encoder, ranker, readout.
        temperature: of the listwise losses, in log-odds.
        texts_per_query: candidates of each query that the full-text pass reads, where a loss needs it.
        warmup: share of the steps in which the learning rates rise; then they fall to zero, linearly.
        freeze_embeddings: keep both word embedding tables as they are: they are half of a small model, and unseen
            words stay where they were.
        bf16: mixed precision.
        checkpoint_activations: less memory, a third slower.
        log_every, save_every: steps; development queries are ranked when it saves.
    """

    phases: Sequence[LossWeights] = (LossWeights(listwise=1.0, cosine=0.3),)
    budgets: Sequence[int] = (1, 2, 4, 8)
    learning_rates: tuple[float, float, float] = (2e-5, 1e-4, 1e-3)
    temperature: float = 1.0
    texts_per_query: int = 2
    warmup: float = 0.05
    freeze_embeddings: bool = True
    bf16: bool = False
    checkpoint_activations: bool = False
    log_every: int = 50
    save_every: int = 500


def train_joint(
    model: MixLM,
    mix: TrainingMix,
    folder: str | Path,
    options: JointOptions = JointOptions(),
    *,
    seed: int = 0,
    development: Callable[[MixLM], dict[str, float]] | None = None,
    choose_by: str | None = None,
    progress: bool = True,
) -> MixLM:
    """Train ``model`` in place, one step a group of ``mix``.

    Killed at any moment, the same call goes on from the last checkpoint in ``folder`` and, on a CPU in float32, ends
    with the weights of an uninterrupted run.

    Args:
        development: what is measured of the model at every checkpoint; the values go into history.json and its plot.
        choose_by: the value that decides: the model with the highest is kept in ``best`` and returned. None: the last.

    Raises:
        InputError: the budgets are not the model's, ``choose_by`` is not measured, or the disk is full (the last
            checkpoint is intact).
    """
    folder = Path(folder)
    for budget in options.budgets:
        model.config.check_budget(budget)
    _prepare(model, options)
    objective = JointObjective(model, temperature=options.temperature, texts_per_query=options.texts_per_query)
    watch = _Watch(model, folder, development, choose_by)
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(mix) // mix.parts,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=mix.parts,
        warmup_steps=options.warmup,
        lr_scheduler_type="linear",
        weight_decay=0.01,
        bf16=options.bf16,
        use_cpu=not on_gpu,
        logging_steps=options.log_every,
        save_steps=options.save_every,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        ddp_find_unused_parameters=True,
        report_to="none",
        disable_tqdm=not progress,
        seed=seed,
    )
    trainer = JointTrainer(
        objective,
        phases=options.phases,
        budgets=options.budgets,
        learning_rates=options.learning_rates,
        seed=seed,
        args=arguments,
        train_dataset=mix,
        data_collator=only,
        callbacks=[watch],
    )
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    try:
        trainer.train(resume_from_checkpoint=last)
    except OSError as error:
        raise InputError(
            f"cannot write a checkpoint to {folder} ({error.strerror or error}): make room and run the same command "
            "again; it goes on from the last one"
        ) from None
    model.eval()
    return MixLM.from_pretrained(folder / BEST) if (folder / BEST).is_dir() and choose_by else model


class _Watch(TrainerCallback):
    """Measures at every checkpoint, keeps the best model, and draws what happened so far."""

    def __init__(
        self,
        model: MixLM,
        folder: Path,
        development: Callable[[MixLM], dict[str, float]] | None,
        choose_by: str | None,
    ) -> None:
        self._model = model
        self._folder = folder
        self._development = development
        self._choose_by = choose_by

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if self._development is not None:
            values = self._development(self._model)
            if self._choose_by is not None and self._choose_by not in values:
                raise InputError(f"{self._choose_by!r} is not measured; there is {', '.join(values)}")
            state.log_history.append({"step": state.global_step, **{f"dev {k}": v for k, v in values.items()}})
            self._keep_best(state.log_history)
        with writing(self._folder / HISTORY) as file:
            json.dump(state.log_history, file, indent=1)
        plot_history(state.log_history, self._folder / PLOT)

    def _keep_best(self, history: Sequence[dict[str, Any]]) -> None:
        key = f"dev {self._choose_by}"
        values = [row[key] for row in history if key in row]
        if values and values[-1] == max(values):
            self._model.save_pretrained(self._folder / BEST)


def _prepare(model: MixLM, options: JointOptions) -> None:
    """No dropout: the teacher regularises, and a resumed run needs no state of a random generator."""
    for backbone in (model.item_encoder.backbone, model.ranker.backbone):
        for module in backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if options.freeze_embeddings:
            backbone.get_input_embeddings().weight.requires_grad_(False)
        if options.checkpoint_activations:
            backbone.gradient_checkpointing_enable()
