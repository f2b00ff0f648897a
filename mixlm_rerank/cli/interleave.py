"""``mixlm-rerank eval interleave``: which of two runs would users prefer?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..data import read_qrels, read_run
from ..data.lines import writing
from ..errors import InputError
from .options import check_output

__all__ = ["interleave"]

COLUMNS = ["clicks", "A wins", "B wins", "ties", "B preferred", "95% interval", "sessions needed"]


def interleave(
    a: Annotated[Path, typer.Argument(help="TREC (or MS MARCO) run of system A.")],
    b: Annotated[Path, typer.Argument(help="Run of system B.")],
    qrels: Annotated[Path | None, typer.Option(help="Judgments; users click on relevant documents.")] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="A click log (TSV: session, qid, docids shown, docids clicked), instead of --qrels. A position-based "
            "click model is estimated from it."
        ),
    ] = None,
    clicks: Annotated[
        Literal["perfect", "navigational", "informational", "position-based"] | None,
        typer.Option(help="Click model for --qrels; by default all of them, one after the other."),
    ] = None,
    method: Annotated[Literal["team-draft", "balanced"], typer.Option(help="Interleaving method.")] = "team-draft",
    sessions: Annotated[int, typer.Option(min=1, help="Sessions to simulate.")] = 100_000,
    depth: Annotated[int, typer.Option(min=1, help="Documents per result page.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the result to this JSON file.")] = None,
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
    if as_json is not None:
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
    typer.echo(lined_up([COLUMNS, *rows]))
    typer.echo("B preferred: share of sessions that B wins, a tie counts half. Needed: at p < .05 with power .8.")
    if as_json is not None:
        told = {
            **{"a": str(a), "b": str(b), "qrels": qrels and str(qrels), "log": log and str(log)},
            **{"method": method, "depth": models[0].depth, "sessions": sessions, "seed": seed},
            **{"queries": queries, "known": known, "clicks": {name: asdict(own) for name, own in found.items()}},
        }
        with writing(as_json) as file:
            file.write(json.dumps(told, indent=1) + "\n")
