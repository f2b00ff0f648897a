"""``mixlm-rerank eval report`` and related commands: ``compare``, ``fit`` (a weight), ``teacher`` (weights)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from ..data.lines import writing
from ..systems.loading import Loading
from . import options
from .options import Depth, Device, Dtype, Offline, check_output, open_models, open_places, resumable, say

if TYPE_CHECKING:
    from mixlm_rerank.eval.weights import Development

    from ..systems.protocol import System
    from ..systems.ranked import Candidates

__all__ = ["compare", "fit", "report", "teacher"]

DevelopmentSets = Annotated[
    list[str],
    Argument(help="BEIR folders or irds:DATASET. Add @SPLIT for a split other than 'dev': DATA/msmarco@dl21."),
]
Measure = Annotated[str, Option("--measure", "-m", help="Measure to maximise.")]


def report(
    collections: Annotated[
        list[str],
        Argument(
            help="BEIR folders, a folder of BEIR folders, or irds:DATASET. Add @SPLIT for a split other than 'test': "
            "DATA/msmarco@dl19."
        ),
    ],
    output: options.Results,
    systems: options.Systems = "cosine,mixlm:1,mixlm,full-text",
    first_stage: options.FirstStages = "bm25",
    depth: Depth = 100,
    measure: Annotated[
        list[str] | None,
        Option("--measure", "-m", help="In the notation of ir_measures; the first is the main one; may be repeated."),
    ] = None,
    baseline: Annotated[
        str, Option(help="System that the others are tested against, as in --systems.")
    ] = "first stage",
    teacher: Annotated[str | None, Option(help="System that the others should agree with, as in --systems.")] = None,
    model: options.Models = None,
    topics: options.Topics = None,
    qrels: options.Qrels = None,
    sample: options.Sample = None,
    index: options.OwnIndex = None,
    candidates_only: Annotated[
        bool, Option("--candidates-only", help="Encode only the candidates; sizes and times refer to them.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: options.QuietBars = False,
) -> None:
    """Compare MixLM with other systems on one page: quality, speed, size, and the queries where each loses."""
    from mixlm_rerank.eval.harness import check_measures, check_names, evaluate_collection
    from mixlm_rerank.eval.report import answers, write_report
    from mixlm_rerank.eval.results import Evaluation, save_results
    from mixlm_rerank.eval.standings import standings

    from ..data.measures import default_measures
    from ..systems.machine import machine
    from ..systems.specs import make_systems, name_of, unique

    measures = measure or list(default_measures(depth))
    check_measures(measures)
    loading = Loading(device, dtype, offline)
    opened = open_places(collections, output, first_stage, topics, qrels, sample, index, loading, not quiet)
    named = make_systems(systems, open_models(model, loading), loading)
    made = unique(named)
    baseline, teacher = name_of(baseline, named), None if teacher is None else name_of(teacher, named)
    check_names(made, baseline, teacher)
    evaluated = partial(evaluate_collection, measures=measures, depth=depth, baseline=baseline, teacher=teacher)
    with resumable(output):
        results = [evaluated(work, stage, made, candidates_only=candidates_only) for work, stage in opened]
        names = list(results[0].systems[0].measures)
        created, command = datetime.now(UTC).isoformat("T", "seconds"), shlex.join(["mixlm-rerank", *sys.argv[1:]])
        evaluation = Evaluation(created, command, version("mixlm-rerank"), machine(), names, results)
        save_results(evaluation, output / "results.json")
        write_report(evaluation, output)
    say(f"{output}/report.html: {len(results)} collections, {len(made) + 2} systems")
    for found in answers(standings(evaluation)):
        typer.echo(f"{found.head} {found.text}")


def compare(
    a: Annotated[Path, Argument(help="Folder of the first report, or its results.json.")],
    b: Annotated[Path, Argument(help="Folder of the second report.")],
    html: Annotated[Path | None, Option(help="Also write the comparison to this HTML file.")] = None,
) -> None:
    """Show what differs between two reports: quality, with paired tests, and speed."""
    from mixlm_rerank.eval.report.compared import compare_evaluations, comparison_html, comparison_text
    from mixlm_rerank.eval.results import load_results

    check_output(html)
    difference = compare_evaluations(load_results(a), load_results(b))
    typer.echo(comparison_text(difference))
    if html is not None:
        with writing(html) as file:
            file.write(comparison_html(difference))


def fit(
    collections: DevelopmentSets,
    output: options.Results,
    systems: options.Systems = "cosine,mixlm",
    first_stage: options.FirstStages = "bm25",
    depth: Depth = 100,
    measure: Measure = "nDCG@10",
    model: options.Models = None,
    topics: options.Topics = None,
    qrels: options.Qrels = None,
    sample: options.Sample = None,
    index: options.OwnIndex = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: options.QuietBars = False,
) -> None:
    """Find the best weight of the first stage. Use development queries, never test queries."""
    from mixlm_rerank.eval.harness import check_measures, check_names
    from mixlm_rerank.eval.weights import fit_weight

    from ..systems.ranked import FIRST_STAGE, find_candidates
    from ..systems.specs import make_systems, unique

    check_measures([measure])
    loading = Loading(device, dtype, offline)
    opened = open_places(collections, output, first_stage, topics, qrels, sample, index, loading, not quiet, "dev")
    made = unique(make_systems(systems, open_models(model, loading), loading))
    check_names(made, FIRST_STAGE, None)
    with resumable(output):
        candidates = [find_candidates(work, stage, depth) for work, stage in opened]
        for system in made:
            typer.echo(f"{system.name}: {fit_weight(_ranked(system, opened, candidates, restricted=True), measure)}")


def teacher(
    collections: DevelopmentSets,
    members: Annotated[str, Option(help="Comma-separated: max-sim:NAME, bi-encoder:NAME, cross-encoder:NAME, bm25.")],
    weights: Annotated[Path, Option(help="The YAML file to write: members and weights in a recipe's format.")],
    output: options.Results,
    first_stage: options.FirstStages = "bm25",
    depth: Depth = 100,
    measure: Measure = "nDCG@10",
    topics: options.Topics = None,
    qrels: options.Qrels = None,
    sample: options.Sample = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: options.QuietBars = False,
) -> None:
    """Fit the weights of a teacher's members. Use development queries, never test queries."""
    import yaml

    from mixlm_rerank.eval.harness import check_measures
    from mixlm_rerank.eval.weights import fit_ensemble

    from ..systems.combined import Ensemble
    from ..systems.members import check_members
    from ..systems.ranked import find_candidates

    check_measures([measure])
    check_output(weights)
    words = list(dict.fromkeys(word.strip() for word in members.split(",") if word.strip()))
    check_members(words)
    loading = Loading(device, dtype, offline)
    opened = open_places(collections, output, first_stage, topics, qrels, sample, None, loading, not quiet, "dev")
    with resumable(output):
        candidates = [find_candidates(work, stage, depth) for work, stage in opened]
        # over the whole corpus, so that BM25's statistics are those of training
        rankings = {word: _ranked(Ensemble(word, {word: 1.0}, loading), opened, candidates) for word in words}
    widest = max(map(len, [*words, "together"]))
    for word, own in rankings.items():
        typer.echo(f"{word:<{widest}}  {fit_ensemble({word: own}, measure)[1]:.4f}")
    fitted, value = fit_ensemble(rankings, measure)
    typer.echo(f"{'together':<{widest}}  {value:.4f}  {measure}, mean of {len(opened)} collections")
    with writing(weights) as file:
        yaml.safe_dump({"members": fitted}, file, sort_keys=False)
    say(f"{weights}: weights in log-odds, for the recipe's teacher")


def _ranked(
    system: System, opened: options.Places, candidates: Sequence[Candidates], *, restricted: bool = False
) -> list[Development]:
    """A system's ranking of every collection. ``restricted``: it reads only the candidates, not the whole corpus."""
    from mixlm_rerank.eval.weights import Development

    from ..systems.ranked import rank

    return [
        Development(
            hits, rank(system, hits, work.restricted(hits.texts) if restricted else work).ranking, work.collection.qrels
        )
        for hits, (work, _) in zip(candidates, opened, strict=True)
    ]
