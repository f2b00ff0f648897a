"""The Trainer of stage III: Hugging Face's, with our objective, budgets, curriculum and development values."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers.training_args import OptimizerNames
from transformers.utils import logging

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.model import MixLM
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import weights_at
from mixlm_rerank.training.mix import Batch
from mixlm_rerank.training.stage_trainer import StageTrainer

if TYPE_CHECKING:
    from mixlm_rerank.training.stage3 import JointOptions

__all__ = ["MEASURED", "START", "JointTrainer"]

START = "start"  # folder of the model at the start; removed after training
PLOT = "history.png"
MEASURED = "eval_"  # prefix of development values in the Trainer's log
NOT_DRAWN = {"step", "epoch", "learning_rate", "grad_norm"}

logger = logging.get_logger(__name__)


class JointTrainer(StageTrainer):
    """Trains a :class:`JointObjective` as ``options`` say. Each step trains the largest token budget and one of the
    others: the main cost is encoding the documents, once for both.

    When memory runs out, the step is repeated in twice as many passes, and later steps use as many.

    ``development``: measures the model when the Trainer evaluates. ``given``: arguments of the Hugging Face Trainer.
    """

    def __init__(
        self,
        objective: JointObjective,
        options: JointOptions,
        development: Callable[[MixLM], dict[str, float]] | None,
        **given: Any,
    ) -> None:
        super().__init__(model=objective, eval_dataset=[], **given)  # development values need no dataset
        self._objective = objective
        self._options = options
        self._development = development
        self._queries_at_once = options.queries_at_once
        self._sums: dict[str, Tensor | float] = {}  # tensors: numbers would synchronise with the GPU
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
            except RuntimeError as error:  # GPU or host memory (torch has no exception class for the latter)
                if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                    raise
            model.zero_grad()
            # several processes must stay in step, and gradients accumulated before are lost
            if size == 1 or self.args.world_size > 1 or self.args.gradient_accumulation_steps > 1:
                raise InputError(
                    f"out of memory with {size} {'query' if size == 1 else 'queries'} at once: set the recipe's "
                    "joint.queries_at_once lower, or candidates, or model.options.max_document_tokens; the last "
                    "checkpoint is intact"
                )
            self._queries_at_once = size // 2
            logger.warning(f"out of memory: from now on {size // 2} queries at once, of the same steps")

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        step = self.state.global_step
        *smaller, largest = sorted(set(self._options.budgets))
        # seeded by the step: a resumed run draws the same
        budgets = [largest, *random.Random(f"{self.args.seed} {step}").sample(smaller, min(1, len(smaller)))]
        batch, weights = inputs["batch"], weights_at(self._options.phases, step / max(1, self.state.max_steps))
        losses: dict[str, Tensor] = model(batch, weights, budgets, inputs["of"])
        for name, loss in losses.items():
            if name != "loss":
                self._sums[name] = self._sums.get(name, 0.0) + loss.detach()
        self._steps += len(batch.queries) / len(inputs["of"].queries)
        return losses["loss"]

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Development values, measured by the first process. Saves the model at the start: it may remain the best."""
        found: list[dict[str, float]] = [{}]
        model, chosen = self._objective.model, self.args.metric_for_best_model
        if self.is_world_process_zero() and self._development is not None:
            values = self._development(model)
            found = [{f"{MEASURED}{name}": float(value) for name, value in values.items()}]
            if chosen is not None and chosen not in found[0]:
                raise InputError(f"{chosen.removeprefix(MEASURED)!r} is not measured; there is {', '.join(values)}")
        broadcast_object_list(found)
        self.log(dict(found[0]))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found[0])
        if chosen is not None and not self.state.global_step:
            self.state.best_metric = found[0][chosen]
            if self.is_world_process_zero():
                model.save_pretrained(Path(str(self.args.output_dir)) / START)
        return found[0]

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Log each loss in addition to their sum, as means since the last call."""
        if "loss" in logs and self._steps:
            logs |= {name: float(value) / self._steps for name, value in self._sums.items()}
            self._sums, self._steps = {}, 0.0
        super().log(logs, *arguments, **options)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            plot_history(self.state.log_history, Path(str(self.args.output_dir)) / PLOT)

    def _get_train_sampler(self, *arguments: Any) -> Sampler[int]:
        return SequentialSampler(cast(Sized, self.train_dataset))  # the mix has its own order

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        mixlm = self._objective.model
        encoder, ranker, readout = self._options.learning_rates
        ranking = nn.ModuleList([mixlm.ranker, mixlm.projector or nn.Identity()])
        parts = ((mixlm.item_encoder, encoder), (ranking, ranker), (mixlm.readout, readout))
        groups = []
        for part, rate in parts:
            for decays in (True, False):  # biases, norms and scalars do not decay
                weights = [one for one in part.parameters() if one.requires_grad and (one.ndim > 1) == decays]
                if weights:
                    groups.append({"params": weights, "lr": rate, "weight_decay": self.args.weight_decay * decays})
        try:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, cast(Any, self._objective))
            self.optimizer = kind(groups, **settings)
        except (ImportError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"optim {OptimizerNames(self.args.optim).value} cannot train a MixLM here ({reason}): choose another "
                "one, or leave it out (AdamW)"
            ) from None
        return cast(torch.optim.Optimizer, self.optimizer)


def plot_history(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the Trainer's log: losses on the left, development values on the right.

    Raises MissingDependency without matplotlib.
    """
    with optional_import("the plot needs matplotlib", "train"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="training batches", xlabel="step", ylabel="loss")
    right.set(title="development queries", xlabel="step", ylabel="nDCG@10")
    for axes, with_loss in ((left, True), (right, False)):
        rows = [row for row in log if ("loss" in row) == with_loss]
        lines: list[tuple[list[str], NDArray[np.float64]]] = []  # equal curves, up to rounding, share a line
        for name in dict.fromkeys(name for row in rows for name in row if name not in NOT_DRAWN):
            points = np.array([(row["step"], float(row[name])) for row in rows if name in row])
            like = ((n, own) for n, own in lines if np.array_equal(own[:, 0], points[:, 0]))
            twins = next((names for names, own in like if np.allclose(own, points, rtol=1e-3, atol=1e-4)), None)
            if twins is None:
                lines.append(([name], points))
            else:
                twins.append(name)
        for names, points in lines:
            axes.plot(*points.T, marker="." if len(points) < 40 else "", label=" = ".join(names).replace(MEASURED, ""))
        axes.spines[["top", "right"]].set_visible(False)
        if lines:
            axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=120)
