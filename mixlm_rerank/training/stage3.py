"""Stage III as one call: train a MixLM on a mix of collections, watched on development queries, resumable."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import TrainerCallback, TrainingArguments

from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.training.batches import single_batch
from mixlm_rerank.training.checkpoints import (
    BEST,
    MODEL,
    check_inputs,
    keep_model,
    last_checkpoint,
    merged_arguments,
    training_arguments,
)
from mixlm_rerank.training.history import plot_history
from mixlm_rerank.training.joint import JointObjective, LossWeights
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.prepare import prepare
from mixlm_rerank.training.processes import process_count
from mixlm_rerank.training.trainer import JointTrainer

__all__ = ["JointOptions", "train_joint"]

DEVELOPMENT, HISTORY, PLOT = "development.json", "history.json", "history.png"
Positive = Annotated[int, Field(ge=1)]  # in a recipe


@dataclass(frozen=True)
class JointOptions:
    """How to train.

    Attributes:
        phases: weights of the losses, a curriculum: see docs/training.md.
        budgets: token budgets that are to serve.
        learning_rates: of item encoder, ranker, readout. 0 freezes: under a frozen item encoder every document is
            encoded once, and a step costs a fraction.
        temperature: of the listwise losses, in log-odds.
        texts_per_query: candidates of each query that the full-text pass reads, where a loss needs it.
        warmup: share of the steps in which the learning rates rise; then they fall to zero, linearly.
        freeze_embeddings: keep both word embedding tables as they are: they are half of a small model, and unseen
            words stay where they were.
        bf16: mixed precision, where the processor multiplies bfloat16 by itself; float32 elsewhere.
        checkpoint_activations: less memory, a third slower.
        queries_at_once: of a step, in one forward and backward pass; the gradients of the passes add up. None: all, and
            fewer once memory has run out.
        log_every, save_every: steps; development queries are ranked when it saves.
        measure_start: rank them before the first step, too.
        lora: train adapters of both backbones instead of their weights (LoRA, 2106.09685): what peft.LoraConfig takes;
            of all linear layers, unless ``target_modules`` says which. What is saved has them merged in.
        arguments: of Transformers' TrainingArguments, what is not said above: ``report_to``, ``lr_scheduler_type``,
            ``gradient_accumulation_steps`` (batches of the mix that make one step) ...
    """

    phases: Sequence[LossWeights] = (LossWeights(listwise=1.0, cosine=0.3),)
    budgets: Sequence[int] = (1, 2, 4, 8)
    learning_rates: tuple[float, float, float] = (2e-5, 1e-4, 1e-3)
    temperature: Annotated[float, Field(gt=0)] = 1.0
    texts_per_query: Positive = 2
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    freeze_embeddings: bool = True
    bf16: bool = False
    checkpoint_activations: bool = False
    queries_at_once: Positive | None = None
    log_every: Positive = 50
    save_every: Positive = 500
    measure_start: bool = True
    lora: dict[str, Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.budgets or not self.phases:
            raise InputError("training needs at least one token budget and one phase")
        if min(self.learning_rates) < 0 or not any(self.learning_rates):
            raise InputError(f"learning rates must not be negative, nor all 0: {self.learning_rates}")
        if not all(min(astuple(phase)) >= 0 and any(astuple(phase)) for phase in self.phases):
            raise InputError("the weights of a phase's losses must not be negative, nor all 0")
        accumulated = self.arguments.get("gradient_accumulation_steps", 1)
        if not isinstance(accumulated, int) or accumulated < 1:
            raise InputError(f"gradient_accumulation_steps is a whole number from 1 on: {accumulated!r}")

    @property
    def decisive(self) -> JointOptions:
        """What the result depends on: a run may go on with other values of the rest."""
        return replace(self, queries_at_once=None, checkpoint_activations=False)

    def steps_of(self, mix: TrainingMix) -> int:
        """Optimizer steps in which a mix is gone through once."""
        together = self.arguments.get("gradient_accumulation_steps", 1) * process_count()
        return max(1, len(mix) // int(together))

    def ranker_alone(self, ranker: float, readout: float) -> JointOptions:
        """With the item encoder frozen: the losses as they were at the end, but for those of the item encoder.

        ``ranker``, ``readout``: their learning rates.
        """
        own = replace(self.phases[-1], cosine=0.0, residual=0.0)
        if not any(astuple(own)):
            raise InputError(
                "the ranker has no loss to train alone by: cosine and residual are those of the item encoder"
            )
        return replace(self, phases=[own], learning_rates=(0.0, ranker, readout))


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
    """Train ``model`` in place, one step a group of ``mix``; what comes out is kept as ``model`` in ``folder``.

    Killed at any moment, the same call goes on from the last checkpoint in ``folder`` and, on a CPU in float32, ends
    with the weights of an uninterrupted run. Where it was finished before, it is loaded.

    Args:
        development: what is measured of the model at the start and at every checkpoint; the values go into history.json
            and its plot.
        choose_by: the value that decides: the model with the highest is kept and returned, be it the one it started
            from. None: the last.

    Raises:
        InputError: ``folder`` was begun with another start or mix, the budgets are not the model's, ``choose_by`` is
            not measured, or the disk is full (the last checkpoint is intact).
    """
    folder = Path(folder)
    finished = partial(MixLM.from_pretrained, folder / MODEL, device=model.device, dtype="float32")
    for budget in options.budgets:
        model.config.check_budget(budget)
    check_inputs(folder, {"model to start from": weights_hash(model), "set of training data": mix.digest})
    if (folder / MODEL).is_dir():
        return finished()
    prepare(model, options, seed)
    objective = JointObjective(
        model, temperature=options.temperature, texts_per_query=options.texts_per_query, folder=folder
    )
    watch = _Watch(model, folder, development, choose_by, options.measure_start)
    arguments = training_arguments(
        TrainingArguments,
        {
            "lr_scheduler_type": "linear",
            "weight_decay": 0.01,
            **merged_arguments(options.arguments, {"bf16": options.bf16}),
        },
        output_dir=str(folder),
        max_steps=options.steps_of(mix),
        per_device_train_batch_size=1,
        warmup_steps=options.warmup,
        use_cpu=model.device.type == "cpu",
        logging_steps=options.log_every,
        save_steps=options.save_every,
        remove_unused_columns=False,
        gradient_checkpointing=False,  # checkpoint_activations
        eval_strategy="no",  # development values
        ddp_find_unused_parameters=True,
        disable_tqdm=not progress,
        seed=seed,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs: torchrun, one process each; never DataParallel
    trainer = JointTrainer(
        objective,
        phases=options.phases,
        budgets=options.budgets,
        learning_rates=options.learning_rates,
        seed=seed,
        queries_at_once=options.queries_at_once,
        args=arguments,
        train_dataset=mix,
        data_collator=single_batch,
        callbacks=[watch],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    trainer.accelerator.wait_for_everyone()  # for the best model, which the first process writes
    model.eval()
    best = folder / BEST
    keep_model(folder, partial(shutil.copytree, best, dirs_exist_ok=True) if best.is_dir() else model.save_pretrained)
    return finished()


class _Watch(TrainerCallback):
    """Measures at every checkpoint, keeps the best model, and draws what happened so far.

    What was measured is kept in a file of its own: a checkpoint does not hold what was found after it was written.
    """

    def __init__(
        self,
        model: MixLM,
        folder: Path,
        development: Callable[[MixLM], dict[str, float]] | None,
        choose_by: str | None,
        measure_start: bool,
    ) -> None:
        self._model = model
        self._folder = folder
        self._development = development
        self._choose_by = choose_by
        self._measure_start = measure_start
        self._measured: dict[int, dict[str, float]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Measure the start. After a kill: forget what came after the checkpoint, and measure that if it was not."""
        path = self._folder / DEVELOPMENT
        if state.global_step and path.is_file():
            rows = json.loads(path.read_text(encoding="utf-8"))
            self._measured = {int(step): row for step, row in rows.items() if int(step) <= state.global_step}
        asked = self._development is not None and (self._measure_start or state.global_step)
        if asked and state.global_step not in self._measured:
            self.on_save(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self._development is not None:
            with torch.autocast(self._model.device.type, torch.bfloat16, enabled=args.bf16):
                values = self._development(self._model)
            if self._choose_by is not None and self._choose_by not in values:
                raise InputError(f"{self._choose_by!r} is not measured; there is {', '.join(values)}")
            self._measured[state.global_step] = values
            self._keep_best(state.global_step)
            with writing(self._folder / DEVELOPMENT) as file:
                json.dump(self._measured, file, indent=1)
        measured = [
            {"step": step, **{f"dev {name}": value for name, value in row.items()}}
            for step, row in self._measured.items()
        ]
        history = [*state.log_history, *measured]
        with writing(self._folder / HISTORY) as file:
            json.dump(history, file, indent=1)
        plot_history(history, self._folder / PLOT)

    def _keep_best(self, step: int) -> None:
        if self._choose_by is None:
            return
        values = {at: row[self._choose_by] for at, row in self._measured.items()}
        if values[step] < max(values.values()):
            return
        name = self._model.name
        self._model.save_pretrained(self._folder / BEST)
        self._model.name = name
