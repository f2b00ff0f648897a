"""The Trainer of stage III: Hugging Face's, with our objective, budgets and curriculum."""

from __future__ import annotations

import random
from collections.abc import Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers.utils import logging

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.batches import Batch
from mixlm_rerank.training.joint import JointObjective, LossWeights, weights_at
from mixlm_rerank.training.stage_trainer import StageTrainer

__all__ = ["JointTrainer"]

logger = logging.get_logger(__name__)


class JointTrainer(StageTrainer):
    """Trains a :class:`JointObjective`.

    Args:
        objective: with the model.
        phases: weights of the losses at equally distant steps, the first at the start and the last at the end; between
            them they move linearly (the paper's curriculum: alignment first, then distillation). One: no curriculum.
        budgets: token budgets that are to serve; each step trains the largest and one of the others: what costs is
            encoding the documents, once for both.
        learning_rates: of item encoder, ranker (with projector), and readout.
        seed: of the budgets.
        queries_at_once: what a step has more is done in several passes, whose gradients add up. When memory runs out,
            the step is begun again with half of it, and so are those that follow.
        options: of the Hugging Face Trainer.
    """

    def __init__(
        self,
        objective: JointObjective,
        *,
        phases: Sequence[LossWeights],
        budgets: Sequence[int],
        learning_rates: tuple[float, float, float],
        seed: int,
        queries_at_once: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model=objective, **options)
        self._objective = objective
        self._phases = phases
        self._budgets = budgets
        self._learning_rates = learning_rates
        self._seed = seed
        self._queries_at_once = queries_at_once
        self._sums: dict[str, Tensor | float] = {}  # of tensors: a number would have to be waited for
        self._steps = 0.0

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any) -> Tensor:
        batch: Batch = inputs["batch"]
        step = super().training_step
        while True:
            size = min(self._queries_at_once or len(batch.queries), len(batch.queries))
            try:
                passes: list[dict[str, Any]] = [{"batch": own, "of": batch} for own in batch.pieces(size)]
                with self.accelerator.no_sync(model):  # other processes may have another number of passes
                    losses = [step(model, own) for own in passes[:-1]]
                return torch.stack([*losses, step(model, passes[-1])]).sum()
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            model.zero_grad()
            self._queries_at_once = self._fewer(size)

    def _fewer(self, size: int) -> int:
        # several processes must stay in step, and what was accumulated before is lost
        if size == 1 or self.args.world_size > 1 or self.args.gradient_accumulation_steps > 1:
            raise InputError(
                f"out of memory with {size} {'query' if size == 1 else 'queries'} at once: set the recipe's "
                "joint.queries_at_once lower, or candidates, or model.options.max_document_tokens; the last checkpoint "
                "is intact"
            )
        logger.warning(f"out of memory: from now on {size // 2} queries at once, of the same steps")
        return size // 2

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        step = self.state.global_step
        *smaller, largest = sorted(set(self._budgets))
        # of the step alone: a resumed run draws the same
        budgets = [largest, *random.Random(f"{self._seed} {step}").sample(smaller, min(1, len(smaller)))]
        batch, weights = inputs["batch"], weights_at(self._phases, step / max(1, self.state.max_steps))
        losses: dict[str, Tensor] = model(batch, weights, budgets, inputs["of"])
        for name, loss in losses.items():
            if name != "loss":
                self._sums[name] = self._sums.get(name, 0.0) + loss.detach()
        self._steps += len(batch.queries) / len(inputs["of"].queries)
        return losses["loss"]

    def _get_train_sampler(self, *arguments: Any) -> Sampler[int]:
        return SequentialSampler(cast(Sized, self.train_dataset))  # the mix has an order of its own

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Each loss beside their sum: means since the last time."""
        if "loss" in logs and self._steps:
            logs |= {name: float(value) / self._steps for name, value in self._sums.items()}
            self._sums, self._steps = {}, 0.0
        super().log(logs, *arguments, **options)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        mixlm = self._objective.model
        encoder, ranker, readout = self._learning_rates
        parts: list[tuple[nn.Module | None, float]] = [
            (mixlm.item_encoder, encoder),
            (mixlm.ranker, ranker),
            (mixlm.projector, ranker),
            (mixlm.readout, readout),
        ]
        groups = []
        for part, rate in parts:
            trained = [weight for weight in part.parameters() if weight.requires_grad] if part is not None else []
            for decays in (True, False):  # biases, norms and single numbers do not decay
                weights = [weight for weight in trained if (weight.ndim > 1) == decays]
                if weights:
                    groups.append({"params": weights, "lr": rate, "weight_decay": self.args.weight_decay * decays})
        self.optimizer = torch.optim.AdamW(groups, betas=(self.args.adam_beta1, self.args.adam_beta2))
        return self.optimizer


def _out_of_memory(error: RuntimeError) -> bool:
    """Of a GPU, or of the machine (torch has no class of its own for that)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
