"""``mixlm-rerank eval``: measures of run files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..data import read_qrels, read_run
from ..errors import InputError

__all__ = ["evaluate_runs"]


def evaluate_runs(
    runs: Annotated[list[Path], typer.Argument(help="TREC (or MS MARCO) runs.")],
    qrels: Annotated[Path, typer.Option(help="Judgments: TREC qrels, or BEIR's TSV.")],
    measure: Annotated[
        list[str] | None, typer.Option("--measure", "-m", help="As ir_measures writes them, e.g. 'AP(rel=2)'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Measure runs against judgments, over all judged queries. By default nDCG@10, RR@10, AP, R@100 and Judged@10."""
    from mixlm_rerank.eval import DEFAULT_MEASURES, evaluate

    names = measure or list(DEFAULT_MEASURES)
    judgments = read_qrels(qrels)
    values = {}
    for path in runs:
        run = read_run(path)
        if judgments.keys().isdisjoint(run):
            raise InputError(f"no query of {path} is judged in {qrels}: do they belong together?")
        values[str(path)] = evaluate(judgments, run, names)
    if as_json:
        typer.echo(json.dumps(values))
        return
    width = max(len("run"), *map(len, values))
    typer.echo("  ".join(["run".ljust(width), *(name.rjust(9) for name in names)]))
    for shown, found in values.items():
        cells = [f"{found[name]:.4f}".rjust(max(9, len(name))) for name in names]
        typer.echo("  ".join([shown.ljust(width), *cells]))
    typer.echo(f"{len(judgments):,} judged queries")
