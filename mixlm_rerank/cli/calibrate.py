"""``mixlm-rerank calibrate``: a model whose log-odds can be read as probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data import read_qrels, read_run, read_topics
from ..errors import InputError
from ..ranking import probability
from .options import Device, Model, Offline, load_model

__all__ = ["calibrate"]


def calibrate(
    output: Annotated[Path, typer.Argument(help="Where to save the calibrated model; must not exist yet.")],
    index: Annotated[Path, typer.Option(help="The token index.")],
    topics: Annotated[Path, typer.Option(help="Development queries (any topics format), never test queries.")],
    run: Annotated[Path, typer.Option(help="First-stage run of these queries.")],
    qrels: Annotated[
        Path | None, typer.Option(help="Judgments of these queries; unjudged documents count as irrelevant.")
    ] = None,
    relevant: Annotated[int, typer.Option(help="The lowest grade that counts as relevant.")] = 1,
    teacher_run: Annotated[
        Path | None, typer.Option(help="A run whose scores are a teacher's log-odds, instead of --qrels.")
    ] = None,
    model: Model = "default",
    depth: Annotated[int, typer.Option(min=1, help="Candidates per query.")] = 100,
    device: Device = None,
    offline: Offline = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Save a model whose log-odds can be read as probabilities, and report whether a threshold separates documents.

    Rankings and the index do not change.
    """
    from mixlm_rerank.eval.calibration import calibrate as fit
    from mixlm_rerank.eval.calibration import calibrated, draw, pairs_of

    from ..index import TokenIndex
    from ..reranker import Reranker

    if (qrels is None) == (teacher_run is None):
        raise InputError("give either --qrels (judgments) or --teacher-run (a teacher's log-odds)")
    if output.exists():
        raise InputError(f"{output} exists: choose another folder")
    if qrels is not None:
        targets = {
            qid: {docid: float(grade >= relevant) for docid, grade in own.items()}
            for qid, own in read_qrels(qrels).items()
        }
    else:
        taught = read_run(str(teacher_run))
        targets = {qid: {hit.docid: probability(hit.score) for hit in hits} for qid, hits in taught.items()}
    queries = read_topics(topics)
    hits = {qid: own[:depth] for qid, own in read_run(run).items() if qid in targets and qid in queries}
    changed = load_model(model, device, "float32", offline)
    pairs = pairs_of(Reranker(changed, TokenIndex(index)).rerank_batch(queries, hits, progress=not quiet), targets)
    found = fit(pairs)
    calibrated(changed, found.slope, found.intercept)
    changed.save_pretrained(output)
    draw(pairs, found, output / "calibration.png")
    (output / "calibration.txt").write_text(f"{found}\n", encoding="utf-8")
    typer.echo(f"{found}")
    typer.echo(f"{output}: the calibrated model; {output / 'calibration.png'} shows both kinds of documents", err=True)
