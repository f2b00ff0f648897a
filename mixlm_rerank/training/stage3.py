"""Stage III as one call: train a MixLM on a mix of collections, measured on development queries, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from pydantic import Field
from torch import nn
from transformers import TrainingArguments

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.training.folder import MODEL, check_inputs, process_count
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights
from mixlm_rerank.training.mix import TrainingMix, single_batch
from mixlm_rerank.training.stage_trainer import last_checkpoint, training_arguments, without_dropout
from mixlm_rerank.training.trainer import MEASURED, START, JointTrainer

__all__ = ["JointOptions", "train_joint"]

Positive = Annotated[int, Field(ge=1)]  # in a recipe


@dataclass(frozen=True)
class JointOptions:
    """Options of joint training.

    Attributes:
        phases: weights of the losses, a curriculum: see docs/training.md.
        budgets: token budgets at which the model is to be used.
        learning_rates: of item encoder, ranker, readout. 0 freezes: under a frozen item encoder every document is
            encoded once, and a step costs a fraction.
        temperature: of the listwise losses, in log-odds.
        texts_per_query: candidates of each query that the full-text pass reads, where a loss needs it.
        warmup: share of the steps in which the learning rates rise; then they fall to zero, linearly.
        freeze_embeddings: do not train the two word embedding tables: they are half of a small model, and unseen words
            keep their embeddings.
        bf16: mixed precision if the processor multiplies bfloat16 natively, else float32.
        checkpoint_activations: less memory, a third slower.
        queries_at_once: queries of a step in one forward and backward pass; the gradients of the passes add up. None:
            all, and fewer once memory has run out.
        log_every, save_every: in steps; development queries are ranked at every save.
        measure_start: rank development queries before the first step, too.
        lora: train adapters of both backbones instead of their weights (LoRA, 2106.09685): arguments of
            peft.LoraConfig; all linear layers unless ``target_modules`` is given. They are merged into the saved model.
        arguments: further arguments of Transformers' TrainingArguments: ``report_to``, ``lr_scheduler_type``,
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
        """The options that the result depends on: a run may be resumed with other values of the rest."""
        return replace(self, queries_at_once=None, checkpoint_activations=False)

    def check_model(self, model: MixLM) -> None:
        """Raises InputError if the budgets are not the model's, or a loss is not for its kind."""
        for budget in self.budgets:
            model.config.check_budget(budget)
        if model.config.mix_layer and any(phase.cosine for phase in self.phases):
            raise InputError(
                "the loss cosine compares embeddings, which an item encoder below a mix layer does not give: leave it "
                "out of joint.phases (of distill's recipes, those named cut have none)"
            )

    def steps_of(self, mix: TrainingMix) -> int:
        """Optimizer steps of one pass over a mix."""
        together = self.arguments.get("gradient_accumulation_steps", 1) * process_count()
        return max(1, len(mix) // int(together))

    def ranker_alone(self, ranker: float, readout: float) -> JointOptions:
        """Options for a frozen item encoder: the losses of the last phase, without those of the item encoder.

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
    """Train ``model`` in place, one step per group of ``mix``, and save the result as ``model`` in ``folder``.

    After a kill at any moment, the same call resumes from the last checkpoint in ``folder`` and, on a CPU in float32,
    ends with the weights of an uninterrupted run. If the training was finished before, its model is loaded.

    Args:
        development: measures the model at the start and at every checkpoint; the values go into history.png and the
            log.
        choose_by: the value that decides: the model with the highest is kept and returned, possibly the start. None:
            the last.

    Raises:
        InputError: ``folder`` was begun with another start or mix, budgets or losses are not for the model,
            ``choose_by`` is not measured, or the disk is full (the last checkpoint is intact).
    """
    folder = Path(folder)
    finished = partial(MixLM.from_pretrained, folder / MODEL, device=model.device, dtype="float32")
    options.check_model(model)
    check_inputs(folder, {"model to start from": weights_hash(model), "set of training data": mix.digest})
    if (folder / MODEL).is_dir():
        return finished()
    _prepare(model, options, seed)
    measured = development is not None
    chosen = f"{MEASURED}{choose_by}" if measured and choose_by is not None else None
    arguments = training_arguments(
        TrainingArguments,
        {"weight_decay": 0.01, "optim": "adamw_torch", **options.arguments},
        output_dir=str(folder),
        max_steps=options.steps_of(mix),
        num_train_epochs=1,  # max_steps decides
        learning_rate=max(options.learning_rates),  # each part has its own
        per_device_train_batch_size=1,
        warmup_steps=options.warmup,
        use_cpu=model.device.type == "cpu",
        bf16=options.bf16,
        logging_steps=options.log_every,
        save_steps=options.save_every,
        eval_strategy="steps" if measured else "no",
        eval_steps=options.save_every,
        eval_on_start=measured and options.measure_start and last_checkpoint(folder) is None,
        load_best_model_at_end=chosen is not None,
        metric_for_best_model=chosen,
        greater_is_better=True,
        remove_unused_columns=False,
        gradient_checkpointing=False,  # checkpoint_activations
        ddp_find_unused_parameters=True,
        disable_tqdm=not progress,
        seed=seed,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs: torchrun, one process each; never DataParallel
    objective = JointObjective(
        model, temperature=options.temperature, texts_per_query=options.texts_per_query, folder=folder
    )
    trainer = JointTrainer(
        objective, options, development, args=arguments, train_dataset=mix, data_collator=single_batch
    )

    def write(draft: Path) -> None:
        if (folder / START).is_dir() and trainer.state.best_global_step is None:
            shutil.copytree(folder / START, draft, dirs_exist_ok=True)
        else:
            model.eval().save_pretrained(draft)

    trainer.train_on(write, START)
    return finished()


def _prepare(model: MixLM, options: JointOptions, seed: int) -> None:
    """Freeze what has a learning rate of 0, add adapters, and switch dropout off, in place.

    The teacher regularises instead of dropout, and a resumed run then needs no state of a random generator. Weights
    become float32: in half precision small updates are rounded away (``bf16`` is only for the arithmetic).

    Raises InputError for adapters that PEFT rejects, and for checkpoint_activations with fixed_documents.
    """
    if options.checkpoint_activations and model.config.fixed_documents:
        raise InputError("checkpoint_activations is not possible with fixed_documents: leave one of them out")
    model.float()
    for part, rate in zip((model.item_encoder, model.ranker, model.readout), options.learning_rates, strict=True):
        part.requires_grad_(rate > 0)
    if options.lora is not None:
        with optional_import("LoRA needs PEFT", "train"):
            from peft import LoraConfig, inject_adapter_in_model
        torch.manual_seed(seed)
        for part in model.readers.values():
            if any(weight.requires_grad for weight in part.parameters()):  # from here on, only the adapters' do
                try:
                    adapters = LoraConfig(**{"target_modules": "all-linear", **options.lora})
                    inject_adapter_in_model(adapters, cast(nn.Module, part.backbone))
                except (TypeError, ValueError) as error:
                    raise InputError(f"lora: {' '.join(str(error).split())}") from None
    for backbone in (part.backbone for part in model.readers.values()):
        without_dropout(cast(nn.Module, backbone))
        if options.freeze_embeddings:
            backbone.get_input_embeddings().weight.requires_grad_(False)
        if options.checkpoint_activations:
            backbone.gradient_checkpointing_enable()
