"""``mixlm-rerank eval``: measures of run files; beside them, the commands of the other files of this group."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data import read_qrels, read_run
from ..errors import InputError
from ..types import Candidate
from .figures import figures
from .interleave import interleave
from .report import compare, fit, report
from .teacher import teacher

__all__ = ["app"]

app = typer.Typer(help="Measure runs and compare systems.", no_args_is_help=True)
app.command("report")(report)
app.command("fit")(fit)
app.command("teacher")(teacher)
app.command("compare")(compare)
app.command("figures")(figures)
app.command("interleave")(interleave)


@app.command("runs")
def evaluate_runs(
    runs: Annotated[list[Path], typer.Argument(help="TREC (or MS MARCO) runs.")],
    qrels: Annotated[Path, typer.Option(help="Judgments: TREC qrels, or BEIR's TSV.")],
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", help="In the notation of ir_measures, e.g. 'AP(rel=2)'; may be repeated."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="One of the runs; the others are tested against it on the first measure.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="A run, e.g. a cross-encoder's; shows how well the others agree with it.")
    ] = None,
    with_oracle: Annotated[
        bool,
        typer.Option(
            "--oracle", help="Add the upper bound: the first run's candidates in the order of their judgments."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure runs against judgments, over all judged queries. Default: nDCG@10, RR@10, AP, R@100 and Judged@10."""
    from mixlm_rerank.data.measures import measure as measured
    from mixlm_rerank.eval import DEFAULT_MEASURES, compare, evaluate, fidelity, oracle
    from mixlm_rerank.eval.tables import lined_up

    names = measure or list(DEFAULT_MEASURES)
    if baseline is not None and baseline not in runs:
        raise InputError(f"the baseline {baseline} is not among the runs: add it to them")
    judgments = read_qrels(qrels)
    read: dict[str, dict[str, list[Candidate]]] = {}
    for path in runs:
        read[str(path)] = read_run(path)
        if judgments.keys().isdisjoint(read[str(path)]):
            raise InputError(f"no query of {path} is judged in {qrels}: do they belong together?")
    values = {path: measured(judgments, run, names) for path, run in read.items()}
    found: dict[str, Any] = {"measures": {path: means for path, (means, _) in values.items()}}
    if with_oracle:
        first = next(iter(read.values()))
        found["measures"]["oracle"] = evaluate(judgments, oracle(first, judgments), names)
    if baseline is not None:
        per_query = {path: queries[names[0]] for path, (_, queries) in values.items()}
        found["comparisons"] = [asdict(comparison) for comparison in compare(per_query, str(baseline))]
    if teacher is not None:
        ranking = read_run(teacher)
        found["fidelity"] = {path: asdict(fidelity(run, ranking)) for path, run in read.items()}
    if as_json:
        typer.echo(json.dumps(found))
        return
    means = found["measures"].items()
    typer.echo(lined_up([["run", *names], *([path, *(f"{row[name]:.4f}" for name in names)] for path, row in means)]))
    typer.echo(f"{len(judgments):,} judged queries")
    if baseline is not None:
        typer.echo(f"\n{names[0]} against {baseline}; p of paired tests, two-sided, Holm-corrected")
        heads = ["run", "difference", "wins", "losses", "t-test", "randomisation"]
        typer.echo(lined_up([heads, *map(_comparison, found["comparisons"])]))
    if teacher is not None:
        typer.echo(f"\nfidelity to {teacher}")
        rows = [
            [path, *(f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for value in row.values())]
            for path, row in found["fidelity"].items()
        ]
        typer.echo(lined_up([["run", "RBO(p=.9)", "overlap@10", "Kendall tau", "same first", "queries"], *rows]))


def _comparison(row: dict[str, Any]) -> list[str]:
    tests = [f"{row[name]:.2g}" for name in ("p_t", "p_randomisation")]
    return [row["system"], f"{row['difference']:+.4f}", str(row["wins"]), str(row["losses"]), *tests]
