"""``mixlm-rerank bench``: how fast it is on this machine, beside what else one could run, and beside the arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import Model, Offline, load_model

if TYPE_CHECKING:
    from ..eval.bench.build import BuildOptions
    from ..eval.bench.decoder_model import DecoderShape
    from ..eval.bench.growth import GrowthOptions
    from ..eval.bench.plan import GridOptions
    from ..eval.bench.store import StoreOptions
    from ..model import MixLM

__all__ = ["app"]

app = typer.Typer(help="Measure speed on this machine, everything side by side.", no_args_is_help=True)

Output = Annotated[
    Path,
    typer.Option(
        help="Folder of the results; the same one goes on with an interrupted run. What is there is not measured "
        "again, so take a new one after a change of the code."
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="Times that each is measured, in turn.")]
Seconds = Annotated[float, typer.Option(min=0.001, help="Of each in all; what is slower takes part in fewer rounds.")]
Lengths = Annotated[str, typer.Option(help="Comma-separated: tokens of a document.")]
Candidates = Annotated[str, typer.Option(help="Comma-separated: candidates of a query.")]
Budgets = Annotated[str, typer.Option(help="Comma-separated: token budgets; those that the model has are measured.")]
Largest = Annotated[int, typer.Option(min=1, help="Documents of the largest index; a million take 4 GB for a while.")]
Documents = Annotated[int, typer.Option(min=1, help="Documents that are built into an index.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No estimate and no progress bar.")]


@app.command("grid")
def grid(
    output: Output,
    model: Model = "default",
    lengths: Lengths = "64,128,256,512",
    candidates: Candidates = "10,100,1000",
    budgets: Budgets = "1,2,4,8",
    rounds: Rounds = 9,
    seconds: Seconds = 30.0,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """MixLM in PyTorch and in ONNX Runtime beside the cross-encoder of the same backbone, there in int8."""
    from mixlm_rerank.eval.bench.plan import GridOptions

    options = GridOptions(
        lengths=_numbers("--lengths", lengths),
        candidates=_numbers("--candidates", candidates),
        budgets=_numbers("--budgets", budgets),
        rounds=rounds,
        seconds=seconds,
    )
    with _resumable(output):
        typer.echo(_grid(_load(model, offline), output, options, quiet))


@app.command("decoder")
def decoder(
    output: Output,
    layers: Annotated[int, typer.Option(min=1, help="Of the random decoder.")] = 4,
    hidden: Annotated[int, typer.Option(min=2, help="Its hidden size.")] = 512,
    document: Annotated[int, typer.Option(min=1, help="Tokens of a document.")] = 900,
    items: Annotated[int, typer.Option(min=1, help="Documents of a query.")] = 50,
    rounds: Rounds = 5,
    seconds: Seconds = 90.0,
    quiet: Quiet = False,
) -> None:
    """Random weights in the shape of Qwen3, long documents, with and without prefix sharing: the paper's table."""
    from mixlm_rerank.eval.bench.decoder_model import DecoderShape

    shape = DecoderShape(layers=layers, hidden=hidden, document=document, items=items)
    with _resumable(output):
        typer.echo(_decoder(output, shape, rounds, seconds, quiet))


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
    """Latency against candidates, corpus size, prefix and document length; memory of a rerank."""
    from mixlm_rerank.eval.bench.growth import GrowthOptions

    options = GrowthOptions(largest=largest, rounds=rounds, seconds=seconds)
    with _resumable(output):
        typer.echo(_growth(_load(model, offline), output, options, quiet))


@app.command("build")
def build(
    output: Output,
    model: Model = "default",
    documents: Documents = 2048,
    rounds: Rounds = 3,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Index building against the bare item encoder on the same texts."""
    from mixlm_rerank.eval.bench.build import BuildOptions

    with _resumable(output):
        typer.echo(_build(_load(model, offline), output, BuildOptions(documents, rounds), quiet))


@app.command("store")
def store(
    output: Output,
    largest: Largest = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Fetches timed.")] = 41,
    quiet: Quiet = False,
) -> None:
    """The token index by itself: fetching against a bare memory map, opening, memory and disk, as it grows."""
    from mixlm_rerank.eval.bench.store import StoreOptions

    sizes = tuple(sorted({min(size, largest) for size in StoreOptions().documents}))
    with _resumable(output):
        typer.echo(_store(output, StoreOptions(documents=sizes, rounds=rounds), quiet))


@app.command("serve")
def serve(
    output: Output,
    model: Model = "default",
    documents: Annotated[int, typer.Option(min=1, help="In the index.")] = 100_000,
    candidates: Annotated[int, typer.Option(min=1, help="Documents of a request.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each rate.")] = 20.0,
    soak: Annotated[float, typer.Option(min=0.1, help="Seconds at 80% of saturation.")] = 600.0,
    deadline: Annotated[float, typer.Option(min=0.01, help="Seconds in which a request must be answered.")] = 2.0,
    device: Annotated[str, typer.Option(help="Of the server: cpu, cuda ...")] = "cpu",
    paper_shape: Annotated[
        bool, typer.Option("--paper-shape", help="Instead of --model: random weights in the shape of Qwen3-0.6B, k=1.")
    ] = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """The server under load: its saturation, its latency below and beyond, batching, memory."""
    from mixlm_rerank.eval.bench.gpu_model import saved_gpu_mixlm
    from mixlm_rerank.eval.bench.serve import ServeOptions, measure_serve, write_serve

    options = ServeOptions(
        documents=documents, candidates=candidates, seconds=seconds, soak=soak, deadline=deadline, device=device
    )
    with _resumable(output):
        loaded = _load(str(saved_gpu_mixlm(output / "model")) if paper_shape else model, offline)
        kept = measure_serve(loaded, output, options, say=_say(quiet))
        typer.echo(write_serve(kept, output, options, loaded.name))


@app.command("gpu")
def gpu(
    output: Output,
    seconds: Annotated[float, typer.Option(min=0.001, help="Of each measurement, about.")] = 1.0,
    quiet: Quiet = False,
) -> None:
    """The paper's shape, random weights, on a GPU: items a second, latency, share of the chip's matrix rate."""
    from mixlm_rerank.eval.bench.gpu import GpuOptions, measure_gpu
    from mixlm_rerank.eval.bench.gpu_report import TRAINING, write_gpu

    from ..eval.bench.training_step import measure_training

    options = GpuOptions(seconds=seconds)
    further = {TRAINING: partial(measure_training, options.shape)}
    with _resumable(output):
        typer.echo(write_gpu(measure_gpu(output, options, further=further, say=_say(quiet)), output, options))


@app.command("all")
def all_of_them(
    output: Output,
    model: Model = "default",
    largest: Largest = 1_000_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="Everything once, very small: does it run here? The figures mean little.")
    ] = False,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Grid, decoder, growth, build and store, each into a folder of its own."""
    from mixlm_rerank.eval.bench.build import BuildOptions
    from mixlm_rerank.eval.bench.decoder_model import DecoderShape
    from mixlm_rerank.eval.bench.growth import GrowthOptions
    from mixlm_rerank.eval.bench.plan import GridOptions
    from mixlm_rerank.eval.bench.store import StoreOptions

    shape, rounds = (DecoderShape(1, 64, 50, 40, 4), 2) if quick else (DecoderShape(), 5)
    grids = GridOptions(lengths=(32, 64), candidates=(5, 10), rounds=2, seconds=5.0) if quick else GridOptions()
    builds = BuildOptions(32, 1) if quick else BuildOptions()
    grows = GrowthOptions(largest=min(largest, 100), rounds=2, seconds=5.0) if quick else GrowthOptions(largest=largest)
    stores = StoreOptions(documents=(100,), rounds=2) if quick else StoreOptions()
    with _resumable(output):
        loaded = _load(model, offline)
        typer.echo(_grid(loaded, output / "grid", grids, quiet))
        typer.echo(_decoder(output / "decoder", shape, rounds, 90.0, quiet))
        typer.echo(_growth(loaded, output / "growth", grows, quiet))
        typer.echo(_build(loaded, output / "build", builds, quiet))
        typer.echo(_store(output / "store", stores, quiet))


def _grid(model: MixLM, folder: Path, options: GridOptions, quiet: bool) -> str:
    from mixlm_rerank.eval.bench.grid import measure_grid
    from mixlm_rerank.eval.bench.grid_report import write_grid

    return write_grid(measure_grid(model, folder, options, progress=not quiet, say=_say(quiet)), folder, model.name)


def _decoder(folder: Path, shape: DecoderShape, rounds: int, seconds: float, quiet: bool) -> str:
    from mixlm_rerank.eval.bench.decoder import measure_decoder
    from mixlm_rerank.eval.bench.decoder_report import write_decoder

    kept = measure_decoder(folder, shape, rounds=rounds, seconds=seconds, progress=not quiet, say=_say(quiet))
    return write_decoder(kept, folder)


def _growth(model: MixLM, folder: Path, options: GrowthOptions, quiet: bool) -> str:
    from mixlm_rerank.eval.bench.growth import measure_growth
    from mixlm_rerank.eval.bench.growth_report import write_growth

    kept = measure_growth(model, folder, options, progress=not quiet, say=_say(quiet))
    return write_growth(kept, folder, model.name, model.config.tokens)


def _build(model: MixLM, folder: Path, options: BuildOptions, quiet: bool) -> str:
    from mixlm_rerank.eval.bench.build import measure_build, write_build

    return write_build(measure_build(model, folder, options, progress=not quiet, say=_say(quiet)), folder, model.name)


def _store(folder: Path, options: StoreOptions, quiet: bool) -> str:
    from mixlm_rerank.eval.bench.store import measure_store
    from mixlm_rerank.eval.bench.store_report import write_store

    return write_store(measure_store(folder, options, progress=not quiet, say=_say(quiet)), folder, options)


def _load(name: str, offline: bool) -> MixLM:
    """In float32 on the CPU, where all of this is measured."""
    return load_model(name, "cpu", "float32", offline)


def _say(quiet: bool) -> Callable[[str], object]:
    return (lambda line: None) if quiet else partial(typer.echo, err=True)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """``"64,128"`` -> (64, 128). Raises InputError for anything but different whole numbers from 1 on."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words) or len(set(words)) < len(words):
        raise InputError(f"{option} {text!r}: expected different whole numbers from 1 on, like 64,128")
    return tuple(sorted(map(int, words)))


@contextmanager
def _resumable(output: Path) -> Iterator[None]:
    """Long work that writes into ``output``; ends the process on Ctrl-C."""
    from mixlm_rerank.eval.bench.plots import check_matplotlib

    check_matplotlib()  # plots are drawn last: ask for them first
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: run the same command again to go on; what {output} holds is safe", err=True)
        raise typer.Exit(130) from None
