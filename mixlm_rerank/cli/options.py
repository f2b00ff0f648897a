"""Options that several commands share, what they open, and how long work ends when it is interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from ..errors import InputError
from ..onnx import OnnxMixLM, is_exported

if TYPE_CHECKING:
    from ..model import MixLM
    from ..types import Model as AnyModel

__all__ = [
    *("AsJson", "CORPUS_HELP", "Depth", "Device", "Dtype", "Model", "Offline", "Quiet"),
    *("check_output", "interruptible", "load_any", "load_model", "resumable", "say"),
]

CORPUS_HELP = "JSONL file, BEIR folder, irds:DATASET (ir_datasets) or lucene:INDEX (Pyserini, stored documents)."

AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Depth = Annotated[int, Option(min=1, help="Candidates per query.")]
Device = Annotated[str | None, Option("--device", help="cpu, cuda ... By default a GPU, if there is one.")]
Dtype = Annotated[
    str | None,
    Option(
        "--dtype",
        help="The ranker's: float32, bfloat16, float16, int8 (CPU). By default bfloat16 on a GPU, else float32.",
    ),
]
Model = Annotated[str, Option("--model", help="'default', a MixLM folder, or a Hugging Face hub id.")]
Offline = Annotated[bool, Option("--offline", help="Use local files only, never the hub.")]
Quiet = Annotated[bool, Option("--quiet", help="No progress bar.")]


def load_model(name: str, device: str | None = None, dtype: str | None = None, offline: bool = False) -> MixLM:
    from ..model import MixLM

    return MixLM.from_pretrained(name, device=device, dtype=dtype, local_files_only=offline)


def load_any(name: str, device: str | None = None, dtype: str | None = None, offline: bool = False) -> AnyModel:
    """A model that :func:`load_model` loads, or an exported one, which needs no PyTorch."""
    if not is_exported(name):
        return load_model(name, device, dtype, offline)
    if device not in (None, "cpu") or dtype not in (None, "float32"):
        raise InputError(f"{name} was exported to ONNX, for CPUs in float32: leave out --device and --dtype")
    return OnnxMixLM.from_pretrained(name)


def check_output(path: Path | None) -> None:
    """Raises InputError if no file can be written at ``path``. Call it before the work."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    is_stream = path.exists() and not path.is_file()  # /dev/stdout
    if not is_stream and not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: the folder {folder} is write-protected")


def say(text: str) -> None:
    """What was done, on stderr: results alone go to stdout."""
    typer.echo(text, err=True)


@contextmanager
def interruptible(told: Callable[..., str], *arguments: Path) -> Iterator[None]:
    """Ctrl-C ends the process with exit code 130; ``told(*arguments)`` then says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {told(*arguments)}")
        raise typer.Exit(130) from None


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Long work that writes into ``output``. Raises InputError if that cannot be made; ends the process on Ctrl-C."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {output}: {error.strerror or error}; choose another folder") from None
    with interruptible(lambda: f"run the same command again to go on; what {output} holds is safe"):
        yield
