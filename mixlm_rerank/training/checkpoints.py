"""Checkpoints that a kill or a full disk cannot spoil: only whole ones are gone on from."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.folders import replacing
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.training.processes import on_main_process, process_count

__all__ = [
    "BEST",
    "MODEL",
    "merged_arguments",
    "content_of",
    "digest_of",
    "keep_model",
    "last_checkpoint",
    "check_inputs",
    "training_arguments",
]

Arguments = TypeVar("Arguments")

BEST, MODEL = "best", "model"
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


def keep_model(folder: Path, write: Callable[[Path], object], parts: Sequence[str] = ()) -> None:
    """Training in ``folder`` is finished: ``write(draft)`` fills what becomes its ``model``. A kill leaves none that is
    half there. Of several processes the first one writes.

    What led to it is removed: the checkpoints, which are several times as large, or the models of ``parts``, folders of
    trainings.
    """

    def keep() -> None:
        with replacing(folder / MODEL) as draft:
            write(draft)
        for spent in [folder / part / MODEL for part in parts] or [*folder.glob("checkpoint-*"), folder / BEST]:
            shutil.rmtree(spent, ignore_errors=True)

    on_main_process(keep)


def training_arguments(kind: Callable[..., Arguments], users: Mapping[str, Any], **own: Any) -> Arguments:
    """Arguments of a Trainer: ``users`` and our ``own``; ``bf16`` where it pays.

    Raises InputError for one of the user's that the Trainer does not have, or that is ours.
    """
    bf16 = bool(users.get("bf16")) and bf16_pays("cpu" if own.get("use_cpu") else None)
    usual = {
        "report_to": "none",
        "save_total_limit": 1,
        "logging_nan_inf_filter": False,  # what is not finite ends the training
        "use_cpu": not torch.cuda.is_available(),
    }
    given = merged_arguments(_numbers(users), own)
    try:
        # Transformers looks for a GPU, and refuses bf16 where there is none, unless the CPU is asked for
        return kind(**{**usual, **given, "bf16": bf16})
    except (TypeError, ValueError) as error:
        raise InputError(f"the arguments of this training: {' '.join(str(error).split())}") from None


def merged_arguments(users: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
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


def digest_of(*values: object) -> str:
    """Hash of values that say all of themselves, in 16 hexadecimal digits."""
    return hashlib.sha256(repr(values).encode("utf-8", "replace")).hexdigest()[:16]


def content_of(source: str | Path) -> str:
    """Hash of a file, or of all files of a folder, in 16 hexadecimal digits; nothing for what is neither."""
    path, parts = Path(source), hashlib.sha256()
    if not str(source) or not path.exists():
        return ""
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as file:
                parts.update(part.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return parts.hexdigest()[:16]


def check_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    """Keep what a run in ``folder`` depends on, by name; raises InputError if it was begun with something else.

    Nothing (``""``) is not held against anything: a checkpoint that is no longer there, say.
    """
    path = folder / INPUTS
    begun: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {name: value for name, value in inputs.items() if value}
    now["number of processes"] = str(process_count())  # a checkpoint of another number of them stands for other steps
    changed = [name for name, value in now.items() if begun.get(name, value) != value]
    if changed:
        raise InputError(f"{folder} was begun with another {', '.join(changed)}: choose another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        json.dump(begun | now, file, indent=1)
