"""``mixlm-rerank eval``: ``runs`` measures run files, ``interleave`` estimates which of two runs users would prefer,
``figures`` checks that commands still reproduce the numbers in README and docs.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from ..data import read_qrels, read_run
from ..data.lines import write_json
from ..errors import InputError, optional_import
from .options import AsJson, check_output, interruptible
from .report import compare, fit, report, teacher

if TYPE_CHECKING:
    from ..eval.figures import Checked

__all__ = ["app"]

INTERLEAVED = ["clicks", "A wins", "B wins", "ties", "B preferred", "95% interval", "sessions needed"]

app = typer.Typer(help="Measure runs and compare systems.", no_args_is_help=True)
for _command in (report, fit, teacher, compare):
    app.command()(_command)


@app.command()
def figures(
    output: Annotated[Path, Option(help="Working folder. The same folder resumes; a new one measures again.")],
    file: Annotated[Path, Argument(help="YAML file of experiments and their figures.")] = Path("docs/figures.yaml"),
    data: Annotated[Path | None, Option(help="Folder of the collections: {data} in the commands.")] = None,
    only: Annotated[list[str] | None, Option(help="Name of an experiment; may be repeated.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Run nothing; say what this machine lacks.")] = False,
    display_commands: Annotated[bool, Option("--display-commands", help="Run nothing; print them.")] = False,
) -> None:
    """Run the commands behind the published figures and compare. Exit code 1 if one differs. Runs what can run here."""
    with optional_import("figures need pydantic and PyYAML", "eval"):
        from mixlm_rerank.eval.figures import check, commands_of, lack, load_experiments, run_experiment

    experiments = load_experiments(file)
    known = [experiment.name for experiment in experiments]
    for name in only or ():
        if name not in known:
            raise InputError(f"--only {name}: {file} has no such experiment. There are: {', '.join(known)}")
    if data is not None and not data.is_dir():
        raise InputError(f"--data: there is no folder {data}; give the one that holds the collections")
    chosen = [experiment for experiment in experiments if not only or experiment.name in only]
    if display_commands:
        for experiment in chosen:
            commands = commands_of(experiment, data, output / experiment.name)
            typer.echo(f"# {experiment.name}\n{' && '.join(map(shlex.join, commands))}")
        return
    counts = {"ok": 0, "off": 0, "not run": 0}
    for experiment in chosen:
        typer.echo(f"{experiment.name} ({experiment.date}, {experiment.machine}): {experiment.command}")
        lacking = lack(experiment, data)
        if lacking or dry_run:
            counts["not run"] += len(experiment.figures)
            typer.echo(f"  not run: {lacking or '--dry-run'}")
            continue
        with interruptible(lambda: "run the same command again to go on"):
            failed = run_experiment(experiment, data, output / experiment.name)
        if failed:
            counts["off"] += len(experiment.figures)
            typer.echo(f"  off: {failed}")
            continue
        checked = check(experiment, output / experiment.name)
        counts["ok"] += sum(row.ok for row in checked)
        counts["off"] += sum(not row.ok for row in checked)
        _table(checked)
    typer.echo(", ".join(f"{count} {word}" for word, count in counts.items()))
    if counts["off"]:
        raise typer.Exit(1)


@app.command()
def interleave(
    a: Annotated[Path, Argument(help="TREC (or MS MARCO) run of system A.")],
    b: Annotated[Path, Argument(help="Run of system B.")],
    qrels: Annotated[Path | None, Option(help="Judgments; users click on relevant documents.")] = None,
    log: Annotated[
        Path | None,
        Option(
            help="A click log (TSV: session, qid, docids shown, docids clicked), instead of --qrels. A position-based "
            "click model is estimated from it."
        ),
    ] = None,
    clicks: Annotated[
        Literal["perfect", "navigational", "informational", "position-based"] | None,
        Option(help="Click model for --qrels; by default all of them, one after the other."),
    ] = None,
    method: Annotated[Literal["team-draft", "balanced"], Option(help="Interleaving method.")] = "team-draft",
    sessions: Annotated[int, Option(min=1, help="Sessions to simulate.")] = 100_000,
    depth: Annotated[int, Option(min=1, help="Documents per result page.")] = 10,
    seed: Annotated[int, Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[Path | None, Option("--json", help="Also write the result to this JSON file.")] = None,
) -> None:
    """Estimate which of two systems users prefer, by interleaving with simulated clicks."""
    from mixlm_rerank import numbers
    from mixlm_rerank.eval.clicks import JUDGED, judged_clicks, logged_clicks, read_click_log
    from mixlm_rerank.eval.interleaving import common_queries, share_known
    from mixlm_rerank.eval.interleaving import interleave as simulate
    from mixlm_rerank.eval.tables import lined_up

    if (qrels is None) == (log is None):
        raise InputError("give either --qrels (judgments) or --log (a click log)")
    if log is not None and clicks is not None:
        raise InputError("--clicks goes with --qrels; from a log the position-based model is estimated")
    check_output(as_json)
    runs = read_run(a), read_run(b)
    if qrels is not None:
        judgments = read_qrels(qrels)
        models = [judged_clicks(name, judgments, depth) for name in ([clicks] if clicks else JUDGED)]
    elif log is not None:
        models = [logged_clicks(read_click_log(log), depth)]
    found = {model.name: simulate(*runs, model, method=method, sessions=sessions, seed=seed) for model in models}
    queries, known = len(common_queries(*runs, models[0])), share_known(*runs, models[0])
    of_them = "judged" if log is None else "in the log"
    typer.echo(f"A: {a}\nB: {b}")
    typer.echo(
        f"{method}, first {models[0].depth} documents ({known:.0%} {of_them}), {sessions:,} sessions of {queries:,} "
        "queries\n"
    )
    rows = [
        [
            name,
            *(f"{count:,}" for count in (own.a, own.b, own.ties)),
            numbers.measure(own.preference),
            f"{numbers.measure(own.low)} to {numbers.measure(own.high)}",
            "-" if own.sessions_needed is None else f"{own.sessions_needed:,}",
        ]
        for name, own in found.items()
    ]
    typer.echo(lined_up([INTERLEAVED, *rows]))
    typer.echo("B preferred: share of sessions that B wins, a tie counts half. Needed: at p < .05 with power .8.")
    if as_json is not None:
        told = {
            **{"a": str(a), "b": str(b), "qrels": qrels and str(qrels), "log": log and str(log)},
            **{"method": method, "depth": models[0].depth, "sessions": sessions, "seed": seed},
            **{"queries": queries, "known": known, "clicks": {name: asdict(own) for name, own in found.items()}},
        }
        write_json(as_json, told)


@app.command("runs")
def evaluate_runs(
    runs: Annotated[list[Path], Argument(help="TREC (or MS MARCO) runs.")],
    qrels: Annotated[Path, Option(help="Judgments: TREC qrels, or BEIR's TSV.")],
    measure: Annotated[
        list[str] | None,
        Option("--measure", "-m", help="In the notation of ir_measures, e.g. 'AP(rel=2)'; may be repeated."),
    ] = None,
    baseline: Annotated[
        Path | None, Option(help="One of the runs; the others are tested against it on the first measure.")
    ] = None,
    teacher: Annotated[
        Path | None, Option(help="A run, e.g. a cross-encoder's; shows how well the others agree with it.")
    ] = None,
    with_oracle: Annotated[
        bool,
        Option("--oracle", help="Add the upper bound: the first run's candidates in the order of their judgments."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure runs against judgments, over all judged queries. Default: nDCG@10, RR@10, AP, R@100 and Judged@10."""
    from mixlm_rerank.data.measures import measure as measured
    from mixlm_rerank.eval import DEFAULT_MEASURES, compare, evaluate, fidelity, oracle
    from mixlm_rerank.eval.tables import lined_up

    names = measure or list(DEFAULT_MEASURES)
    if baseline is not None and baseline not in runs:
        raise InputError(f"the baseline {baseline} is not among the runs: add it to them")
    judgments = read_qrels(qrels)
    read = {str(path): read_run(path) for path in runs}
    for path, run in read.items():
        if judgments.keys().isdisjoint(run):
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
        compared = [
            [row["system"], f"{row['difference']:+.4f}", str(row["wins"]), str(row["losses"])]
            + [f"{row[name]:.2g}" for name in ("p_t", "p_randomisation")]
            for row in found["comparisons"]
        ]
        typer.echo(lined_up([heads, *compared]))
    if teacher is not None:
        typer.echo(f"\nfidelity to {teacher}")
        rows = [
            [path, *(f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for value in row.values())]
            for path, row in found["fidelity"].items()
        ]
        typer.echo(lined_up([["run", "RBO(p=.9)", "overlap@10", "Kendall tau", "same first", "queries"], *rows]))


def _table(checked: Sequence[Checked]) -> None:
    from mixlm_rerank.eval.tables import lined_up

    rows = [("figure", "printed", "expected", "found")]
    for row in checked:
        expected = f"{row.figure.value:.5g} ± {row.figure.tolerance:.5g}"
        rows.append((row.figure.label, row.figure.display, expected, "-" if row.found is None else f"{row.found:.5g}"))
    verdicts = ["", *("ok" if row.ok else f"off: {row.problem}" if row.problem else "off" for row in checked)]
    for line, verdict in zip(lined_up(rows).splitlines(), verdicts, strict=True):
        typer.echo(f"  {line}  {verdict}".rstrip())
