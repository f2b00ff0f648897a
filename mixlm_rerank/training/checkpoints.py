"""Checkpoints that a kill or a full disk cannot spoil: only whole ones are gone on from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.folders import replacing
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.training.processes import once, processes

__all__ = ["besides", "last_checkpoint", "same_inputs", "save_whole", "training_arguments"]

Arguments = TypeVar("Arguments")

STATE = "trainer_state.json"  # the Trainer writes it last
INPUTS = "inputs.json"
WITH_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def last_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint in the folder of a run; what was only begun is removed."""
    if not folder.is_dir():
        return None
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
            whole.append(checkpoint)
        except (OSError, ValueError):
            with suppress(FileNotFoundError):  # another process removes it, too
                shutil.rmtree(checkpoint)
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]))) if whole else None


def save_whole(folder: Path, write: Callable[[Path], object]) -> None:
    """``write(draft)`` fills a folder that then becomes ``folder`` (see :func:`replacing`), in one of the processes."""

    def save() -> None:
        with replacing(folder) as draft:
            write(draft)

    once(save)


def training_arguments(kind: Callable[..., Arguments], users: Mapping[str, Any], **own: Any) -> Arguments:
    """Arguments of a Trainer: ``users`` and our ``own``; ``bf16`` where it pays.

    Raises InputError for one of the user's that the Trainer does not have, or that is ours.
    """
    bf16 = bool(users.get("bf16")) and bf16_pays()
    usual = {"report_to": "none", "use_cpu": not torch.cuda.is_available()}
    given = besides(_numbers(users), own)
    try:
        # Transformers looks for a GPU, and refuses bf16 where there is none, unless the CPU is asked for
        return kind(**{**usual, **given, "bf16": bf16})
    except (TypeError, ValueError) as error:
        raise InputError(f"the arguments of this training: {' '.join(str(error).split())}") from None


def besides(users: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A user's arguments and ours. Raises InputError for one that is both."""
    taken = next((name for name in users if name in own), None)
    if taken is not None:
        raise InputError(f"the arguments of this training: {taken} is not to be set there, the recipe decides it")
    return {**users, **own}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """YAML reads 1e-5 as a word; 1.0e-5 is a number."""
    return {
        name: float(value) if isinstance(value, str) and WITH_EXPONENT.fullmatch(value) else value
        for name, value in values.items()
    }


def same_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Keep what a run in ``folder`` depends on; raises InputError if it was begun with something else."""
    if processes() > 1:  # a checkpoint of another number of them stands for other steps
        inputs = {**inputs, "number of processes": str(processes())}
    path = folder / INPUTS
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            json.dump(dict(inputs), file, indent=1)
        return
    begun: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in {**begun, **inputs} if begun.get(name) != inputs.get(name)]
    if changed:
        raise InputError(f"{folder} was begun with another {', '.join(changed)}: choose another folder, or delete it")
