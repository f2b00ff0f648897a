"""What the trainers of all stages have in common."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Trainer

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.attention import Float32Attention

__all__ = ["StageTrainer"]


class StageTrainer(Trainer):
    """A Trainer whose checkpoints are whole or not there, and whose attention is fast in bfloat16 on a CPU, too.

    Raises InputError where the disk is full, or the loss or a weight is no finite number.
    """

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
