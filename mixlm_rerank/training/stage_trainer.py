"""Shared by the trainers of all stages: arguments, complete checkpoints, fast attention, saving the model."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import Trainer

from mixlm_rerank.errors import InputError
from mixlm_rerank.folders import replacing
from mixlm_rerank.model.running import bf16_pays
from mixlm_rerank.training.folder import MODEL, on_main_process

__all__ = ["STRICT", "Float32Attention", "InOrder", "StageTrainer", "keep_model", "last_checkpoint"]
__all__ += ["training_arguments", "without_dropout"]

Arguments = TypeVar("Arguments")

STRICT = ConfigDict(extra="forbid")  # of the parts of a recipe
STATE = "trainer_state.json"  # the Trainer writes it last
WITH_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


class StageTrainer(Trainer):
    """A Trainer whose checkpoints are complete or absent, and whose attention is fast in bfloat16 on a CPU, too.

    Raises InputError if the disk is full, or the loss or a weight is not finite.
    """

    def train_on(self, write: Callable[[Path], object], *spent: str) -> Path:
        """Train, from the last complete checkpoint if any; ``write(draft)`` then writes the model.

        Returns the model's folder. Checkpoints are removed, and so are the folders named ``spent`` in that of the run.
        """
        folder = Path(str(self.args.output_dir))
        self.train(resume_from_checkpoint=last_checkpoint(folder))
        self.accelerator.wait_for_everyone()  # they all read the best checkpoint
        self.save_state()
        keep_model(folder, write, [*folder.glob("checkpoint-*"), *(folder / name for name in spent)])
        return folder / MODEL

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any) -> Tensor:
        with Float32Attention():
            return super().training_step(model, inputs, *arguments)

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise self._diverged("loss")
        super().log(logs, *arguments, **options)

    def _diverged(self, what: str) -> InputError:
        return InputError(
            f"the {what} is not a finite number at step {self.state.global_step}: train with a lower learning rate, or "
            f"without bf16; the last checkpoint in {self.args.output_dir} is intact"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
            raise self._diverged("model")
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: torch.save
            shutil.rmtree(folder, ignore_errors=True)
            raise InputError(
                f"cannot write the checkpoint {folder} ({' '.join(str(error).split())}): disk full? Make room and run "
                "the same command again; it goes on from the last one"
            ) from None


class InOrder:
    """Mixed into a Trainer of sentence-transformers: the order of the examples is kept, so that texts of similar length
    stay together.
    """

    def get_batch_sampler(self, dataset: Any, batch_size: int, drop_last: bool, *others: Any, **more: Any) -> Any:
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def last_checkpoint(folder: Path) -> str | None:
    """The last complete checkpoint in the folder of a run; incomplete ones are removed."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
            whole.append(checkpoint)
        except (OSError, ValueError):
            with suppress(FileNotFoundError):  # another process removes it, too
                shutil.rmtree(checkpoint)
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))) if whole else None


def keep_model(folder: Path, write: Callable[[Path], object], spent: Iterable[Path]) -> None:
    """Save the result of the training in ``folder``: ``write(draft)`` writes what becomes ``model``, atomically. Of
    several processes the first one writes.

    ``spent``: folders to remove afterwards, such as checkpoints, which are several times as large.
    """

    def keep() -> None:
        with replacing(folder / MODEL) as draft:
            write(draft)
        for one in spent:
            shutil.rmtree(one, ignore_errors=True)

    on_main_process(keep)


def training_arguments(kind: Callable[..., Arguments], users: Mapping[str, Any], **own: Any) -> Arguments:
    """Arguments of a Trainer: the user's (``users``) and ours (``own``); ``bf16`` only where it pays.

    Raises InputError for an argument of the user's that the Trainer does not have, or that we set.
    """
    taken = next((name for name in users if name in own), None)
    if taken is not None:
        raise InputError(f"the arguments of this training: {taken} is not to be set there, the recipe decides it")
    given: dict[str, Any] = {
        "report_to": "none",
        "save_total_limit": 1,
        "logging_nan_inf_filter": False,  # a loss that is not finite ends the training
        # Transformers looks for a GPU, and refuses bf16 where there is none, unless the CPU is asked for
        "use_cpu": not torch.cuda.is_available(),
        **own,
    }
    for name, value in users.items():  # YAML reads 1e-5 as a string; 1.0e-5 is a number
        given[name] = float(value) if isinstance(value, str) and WITH_EXPONENT.fullmatch(value) else value
    given["bf16"] = bool(given.get("bf16")) and bf16_pays("cpu" if own.get("use_cpu") else None)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"the arguments of this training: {' '.join(str(error).split())}") from None


def without_dropout(model: nn.Module) -> None:
    """Switch dropout off, in place."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():  # attention dropout in decoders is a number
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


class Float32Attention(TorchFunctionMode):
    """Context manager: attention between bfloat16 tensors on a CPU is computed in float32.

    On a CPU PyTorch's backward pass of attention takes eight times as long in bfloat16 (2.13, AMX): half of a step.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        options = kwargs or {}
        query = None
        if func is F.scaled_dot_product_attention:
            query = args[0] if args else options["query"]
        if query is None or query.device.type != "cpu" or query.dtype is not torch.bfloat16:
            return func(*args, **options)
        with torch.autocast("cpu", enabled=False):
            exact = {name: _exact(part) for name, part in options.items()}
            attended: Tensor = func(*map(_exact, args), **exact)
        return attended.to(torch.bfloat16)


def _exact(part: Any) -> Any:
    """Floating-point tensors in float32; boolean masks, and values that are not tensors, unchanged."""
    return part.float() if isinstance(part, Tensor) and part.is_floating_point() else part
