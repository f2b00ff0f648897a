"""``mixlm-rerank eval teacher``: the best weights of several rankers, as the teacher of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Dtype, Offline, check_output
from .places import open_places
from .report import Depth, FirstStageOption, Output, Qrels, Quiet, Sample, Topics, resumable

__all__ = ["teacher"]


def teacher(
    collections: Annotated[
        list[str],
        typer.Argument(
            help="BEIR folders or irds:DATASET. Add @SPLIT for a split other than 'dev': DATA/msmarco@dl21."
        ),
    ],
    members: Annotated[
        str, typer.Option(help="Comma-separated: max-sim:NAME, bi-encoder:NAME, cross-encoder:NAME, bm25.")
    ],
    weights: Annotated[Path, typer.Option(help="The YAML file to write: members and weights in a recipe's format.")],
    output: Output,
    first_stage: FirstStageOption = "bm25",
    depth: Depth = 100,
    measure: Annotated[str, typer.Option("--measure", "-m", help="Measure to maximise.")] = "nDCG@10",
    topics: Topics = None,
    qrels: Qrels = None,
    sample: Sample = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Fit the weights of a teacher's members. Use development queries, never test queries."""
    import yaml

    from mixlm_rerank.eval.harness import check_measures
    from mixlm_rerank.eval.weights import Development, fit_ensemble
    from mixlm_rerank.systems.combined import Ensemble
    from mixlm_rerank.systems.loading import Loading
    from mixlm_rerank.systems.members import check_members
    from mixlm_rerank.systems.ranked import find_candidates, rank

    from ..data.lines import writing

    check_measures([measure])
    check_output(weights)
    words = list(dict.fromkeys(word.strip() for word in members.split(",") if word.strip()))
    check_members(words)
    loading = Loading(device, dtype, offline)
    places = open_places(collections, output, first_stage, topics, qrels, sample, None, loading, not quiet, "dev")
    rankings: dict[str, list[Development]] = {}
    with resumable(output):
        candidates = [find_candidates(work, stage, depth) for work, stage in places]
        for word in words:
            system = Ensemble(word, {word: 1.0}, loading)
            rankings[word] = [
                # the whole corpus: BM25's statistics are of that, as in training
                Development(hits, rank(system, hits, work).ranking, work.collection.qrels)
                for hits, (work, _) in zip(candidates, places, strict=True)
            ]
    widest = max(map(len, [*words, "together"]))
    for word, own in rankings.items():
        _, value = fit_ensemble({word: own}, measure)
        typer.echo(f"{word:<{widest}}  {value:.4f}")
    fitted, value = fit_ensemble(rankings, measure)
    typer.echo(f"{'together':<{widest}}  {value:.4f}  {measure}, mean of {len(places)} collections")
    with writing(weights) as file:
        yaml.safe_dump({"members": fitted}, file, sort_keys=False)
    typer.echo(f"{weights}: weights in log-odds, for the recipe's teacher", err=True)
