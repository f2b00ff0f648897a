"""``mixlm-rerank bench``: speed on this machine, compared with cross-encoders and with the ratio of operations."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from ..errors import InputError, optional_import
from .options import Model, Offline, load_model, resumable

__all__ = ["app"]

app = typer.Typer(help="Measure speed on this machine, all systems side by side in one run.", no_args_is_help=True)

Output = Annotated[
    Path,
    Option(
        help="Folder of the results. The same folder resumes an interrupted run: its results are not measured again, "
        "so use a new one after a change of the code."
    ),
]
Rounds = Annotated[int, Option(min=1, help="Measurements of each system; systems take turns.")]
Seconds = Annotated[float, Option(min=0.001, help="Time limit of a system; slow ones get fewer rounds.")]
Largest = Annotated[int, Option(min=1, help="Documents of the largest index; a million need 4 GB of disk.")]
Quiet = Annotated[bool, Option("--quiet", help="Show neither an estimate nor a progress bar.")]

QUICK: dict[str, dict[str, Any]] = {
    "grid": {"lengths": "32,64", "candidates": "5,10", "rounds": 2, "seconds": 5.0},
    "decoder": {"layers": 1, "hidden": 64, "document": 50, "items": 4, "rounds": 2},
    "growth": {"largest": 100, "rounds": 2, "seconds": 5.0},
    "build": {"documents": 32, "rounds": 1},
    "store": {"largest": 100, "rounds": 2},
}


@app.command("grid")
def grid(
    output: Output,
    model: Model = "default",
    lengths: Annotated[str, Option(help="Tokens of a document, separated by commas.")] = "64,128,256,512",
    candidates: Annotated[str, Option(help="Candidates of a query, separated by commas.")] = "10,100,1000",
    budgets: Annotated[
        str, Option(help="Token budgets, separated by commas; too large ones are left out.")
    ] = "1,2,4,8",
    rounds: Rounds = 9,
    seconds: Seconds = 30.0,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """MixLM, in PyTorch and ONNX Runtime, beside the cross-encoder of the same backbone, also in int8."""
    given = {"lengths": lengths, "candidates": candidates, "budgets": budgets}
    varied = {name: _numbers(f"--{name}", text) for name, text in given.items()}
    _measure("grid", output, model, offline, **varied, rounds=rounds, seconds=seconds, quiet=quiet)


@app.command("decoder")
def decoder(
    output: Output,
    layers: Annotated[int, Option(min=1, help="Layers of the random decoder.")] = 4,
    hidden: Annotated[int, Option(min=2, help="Its hidden size.")] = 512,
    document: Annotated[int, Option(min=1, help="Tokens of a document.")] = 900,
    items: Annotated[int, Option(min=1, help="Documents of a query.")] = 50,
    rounds: Rounds = 5,
    seconds: Seconds = 90.0,
    quiet: Quiet = False,
) -> None:
    """The paper's table: a decoder with random weights, long documents, with and without prefix sharing."""
    shape: dict[str, Any] = {"layers": layers, "hidden": hidden, "document": document, "items": items}
    _measure("decoder", output, **shape, rounds=rounds, seconds=seconds, quiet=quiet)


@app.command("growth")
def growth(
    output: Output,
    model: Model = "default",
    largest: Largest = 1_000_000,
    rounds: Rounds = 9,
    seconds: Seconds = 30.0,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Latency against candidates, corpus size, prefix and document length; memory while reranking."""
    _measure("growth", output, model, offline, largest=largest, rounds=rounds, seconds=seconds, quiet=quiet)


@app.command("build")
def build(
    output: Output,
    model: Model = "default",
    documents: Annotated[int, Option(min=1, help="Documents of the index to build.")] = 2048,
    rounds: Rounds = 3,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Speed of building an index, compared with the item encoder alone on the same texts."""
    _measure("build", output, model, offline, documents=documents, rounds=rounds, quiet=quiet)


@app.command("store")
def store(
    output: Output,
    largest: Largest = 1_000_000,
    rounds: Annotated[int, Option(min=1, help="Number of timed fetches.")] = 41,
    quiet: Quiet = False,
) -> None:
    """The token index alone, as it grows: fetching compared with a plain memory map, opening, memory, disk."""
    _measure("store", output, largest=largest, rounds=rounds, quiet=quiet)


@app.command("serve")
def serve(
    output: Output,
    model: Model = "default",
    documents: Annotated[int, Option(min=1, help="Documents in the index.")] = 100_000,
    candidates: Annotated[int, Option(min=1, help="Documents of a request.")] = 100,
    seconds: Annotated[float, Option(min=0.1, help="Seconds at each request rate.")] = 20.0,
    soak: Annotated[float, Option(min=0.1, help="Seconds at 80% of saturation.")] = 600.0,
    deadline: Annotated[float, Option(min=0.01, help="Seconds within which a request must be answered.")] = 2.0,
    device: Annotated[str, Option(help="Device of the server: cpu, cuda ...")] = "cpu",
    paper_shape: Annotated[
        bool, Option("--paper-shape", help="Instead of --model: random weights in the shape of Qwen3-0.6B, k=1.")
    ] = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """The server under load: highest rate, latency below and above it, batching, memory."""
    settings: dict[str, Any] = {"documents": documents, "candidates": candidates, "seconds": seconds, "soak": soak}
    if paper_shape:
        from ..eval.bench.synthetic import saved_mixlm

        with resumable(output):
            model = str(saved_mixlm(output / "model"))
    _measure("serve", output, model, offline, **settings, deadline=deadline, device=device, quiet=quiet)


@app.command("gpu")
def gpu(
    output: Output,
    seconds: Annotated[float, Option(min=0.001, help="Approximate seconds of each measurement.")] = 1.0,
    quiet: Quiet = False,
) -> None:
    """The paper's shape with random weights on a GPU: items/s, latency, share of the chip's matrix rate."""
    _measure("gpu", output, seconds=seconds, quiet=quiet)


@app.command("all")
def all_of_them(
    output: Output,
    model: Model = "default",
    largest: Largest = 1_000_000,
    quick: Annotated[bool, Option("--quick", help="Run everything once at toy size; the figures mean little.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Run grid, decoder, growth, build and store, each with its own results folder."""
    own = {"model": model, "offline": offline}
    size = {"largest": largest}
    commands: list[tuple[Callable[..., None], dict[str, Any]]]
    commands = [(grid, own), (decoder, {}), (growth, own | size), (build, own), (store, size)]
    for command, options in commands:
        name = command.__name__
        command(output / name, **options | (QUICK[name] if quick else {}), quiet=quiet)


def _measure(name: str, output: Path, model: str | None = None, offline: bool = False, **settings: Any) -> None:
    """Run a benchmark and print its page. A model is loaded in float32 on the CPU, where most benchmarks run."""
    with optional_import("the plots need matplotlib", "bench"):  # they are drawn last: fail early
        import matplotlib  # noqa: F401
    given = () if model is None else (load_model(model, "cpu", "float32", offline),)
    with resumable(output):
        module = "index" if name in ("build", "store") else name
        benchmark = getattr(import_module(f"..eval.bench.{module}", __package__), name)
        typer.echo(benchmark(*given, output, **settings))


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """``"64,128"`` -> (64, 128). Raises InputError for anything but different whole numbers from 1 on."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words) or len(set(words)) < len(words):
        raise InputError(f"{option} {text!r}: expected different whole numbers from 1 on, like 64,128")
    return tuple(sorted(map(int, words)))
