"""``mixlm-rerank eval report``: collections and systems in, one page out; and ``eval compare``: two of them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import Device, Dtype, Offline, load_model

if TYPE_CHECKING:
    from ..eval.first_stages import FirstStage
    from ..model import MixLM

__all__ = ["compare", "report"]

SYSTEMS = "cosine,mixlm:1,mixlm,full-text"


def report(
    collections: Annotated[
        list[str],
        typer.Argument(help="BEIR folders or irds:DATASET, each with @SPLIT if it is not 'test': DATA/msmarco@dl19."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the report; the same one goes on with an interrupted run.")],
    systems: Annotated[
        str,
        typer.Option(
            help="Comma-separated: cosine; mixlm or mixlm:K; verify:M; interpolate:W; full-text; cross-encoder:NAME "
            "or cross-encoder:NAME@LENGTH. First stage and oracle always come along."
        ),
    ] = SYSTEMS,
    run: Annotated[
        str | None,
        typer.Option(help="First-stage runs, {collection} and {split} filled in; by default BM25 by Pyserini."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Candidates a query.")] = 100,
    measure: Annotated[
        list[str] | None, typer.Option("--measure", "-m", help="As ir_measures writes them; the first is the main one.")
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="Name of the system that the others are tested against.")
    ] = "first stage",
    teacher: Annotated[
        str | None, typer.Option(help="Name of the system whose ranking the others should give.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="The MixLM: 'default', a folder, or a hub id.")] = "default",
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """How good, how fast, how big, where does it lose? One page on MixLM beside other systems."""
    from mixlm_rerank.eval.collections import open_collection
    from mixlm_rerank.eval.harness import evaluate_collection
    from mixlm_rerank.eval.machine import machine
    from mixlm_rerank.eval.measures import DEFAULT_MEASURES
    from mixlm_rerank.eval.report import write_report
    from mixlm_rerank.eval.results import Evaluation, save_results
    from mixlm_rerank.eval.specs import make_system

    @cache
    def loaded() -> MixLM:
        return load_model(model, device, dtype, offline)

    measures = measure or list(DEFAULT_MEASURES)
    opened = [(source, split, open_collection(source, split)) for source, split in map(_split, collections)]
    made = [make_system(word.strip(), loaded) for word in systems.split(",") if word.strip()]
    results = []
    try:
        for source, split, collection in opened:
            folder = output / collection.name.replace("/", "-").replace(" ", "-")
            results.append(
                evaluate_collection(
                    collection,
                    _first_stage(run, source, split, folder),
                    made,
                    folder,
                    measures=measures,
                    depth=depth,
                    baseline=baseline,
                    teacher=teacher,
                    progress=not quiet,
                )
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: run the same command again to go on; what {output} holds is safe", err=True)
        raise typer.Exit(130) from None
    names = list(results[0].systems[0].measures)
    created, command = datetime.now(UTC).isoformat("T", "seconds"), " ".join(["mixlm-rerank", *sys.argv[1:]])
    evaluation = Evaluation(created, command, version("mixlm-rerank"), machine(), names, results)
    save_results(evaluation, output / "results.json")
    write_report(evaluation, output)
    typer.echo(f"{output}/report.html: {len(results)} collections, {len(made) + 2} systems", err=True)


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a report, or its results.json.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    html: Annotated[Path | None, typer.Option(help="Write it as a page, too.")] = None,
) -> None:
    """What differs between two reports: quality, with paired tests, and speed."""
    from mixlm_rerank.eval.differences import compare_evaluations
    from mixlm_rerank.eval.report import comparison_html, comparison_text
    from mixlm_rerank.eval.results import load_results

    from ..data.lines import writing

    difference = compare_evaluations(load_results(a), load_results(b))
    typer.echo(comparison_text(difference))
    if html is not None:
        with writing(html) as file:
            file.write(comparison_html(difference))


def _split(collection: str) -> tuple[str, str]:
    source, at, split = collection.rpartition("@")
    return (source, split) if at else (collection, "test")


def _first_stage(run: str | None, source: str, split: str, folder: Path) -> FirstStage:
    from mixlm_rerank.eval.first_stages import BM25, RunFile

    if run is None:
        return BM25(folder / "lucene")
    try:
        return RunFile(run.format(collection=source, split=split))
    except (KeyError, IndexError, ValueError):
        raise InputError(f"--run may have {{collection}} and {{split}} in it, and no other braces: {run}") from None
