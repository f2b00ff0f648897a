"""``mixlm-rerank eval report``: collections and systems in, one page out; ``eval fit``: a weight; ``eval compare``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, MixLMError
from .options import Device, Dtype, Offline, check_output
from .places import open_models, open_places

__all__ = ["compare", "fit", "report", "resumable"]

Collections = Annotated[
    list[str],
    typer.Argument(
        help="BEIR folders, a folder of BEIR folders, or irds:DATASET. Add @SPLIT for a split other than 'test': "
        "DATA/msmarco@dl19."
    ),
]
Output = Annotated[Path, typer.Option(help="Folder for the results. After an interruption, the same folder resumes.")]
Systems = Annotated[
    str,
    typer.Option(
        help="Comma-separated: mixlm or mixlm:K (token budget K); verify:M (mixlm, then the best M read in full); "
        "full-text (the same ranker on text); cosine (its item encoder); cross-encoder:NAME or "
        "cross-encoder:NAME@LENGTH; bi-encoder:NAME; max-sim:NAME; multi-vector:NAME; prettr:NAME@M; mice:NAME@M; "
        "all-states; hybrid:NAME; ensemble:FILE; run:FILE; systems of other packages. +W mixes a system with the first "
        "stage at weight W, +rrf by reciprocal ranks. See docs/evaluation.md."
    ),
]
FirstStageOption = Annotated[
    str,
    typer.Option(
        help="bm25 or bm25-multifield (Pyserini); bm25:INDEX, bm25:INDEX@k1=0.9,b=0.4 (your own Lucene index and "
        "settings); run:FILE; dense:NAME (a SentenceTransformer); faiss:FOLDER@ENCODER (Pyserini). {collection} and "
        "{split} are filled in."
    ),
]
Depth = Annotated[int, typer.Option(min=1, help="Candidates per query.")]
Measures = Annotated[
    list[str] | None,
    typer.Option("--measure", "-m", help="In the notation of ir_measures; the first is the main one; may be repeated."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="The MixLM: 'default', a folder or a hub id. Repeat it for several seeds of one recipe."
    ),
]
Topics = Annotated[Path | None, typer.Option(help="Queries, for a collection without its own (any format).")]
Qrels = Annotated[Path | None, typer.Option(help="Judgments, for a collection without its own.")]
Sample = Annotated[int | None, typer.Option(min=1, help="Draw at most this many queries of each collection at random.")]
Index = Annotated[
    str | None,
    typer.Option("--index", help="An existing token index of the documents; {collection} is filled in."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def report(
    collections: Collections,
    output: Output,
    systems: Systems = "cosine,mixlm:1,mixlm,full-text",
    first_stage: FirstStageOption = "bm25",
    depth: Depth = 100,
    measure: Measures = None,
    baseline: Annotated[
        str, typer.Option(help="System that the others are tested against, as in --systems.")
    ] = "first stage",
    teacher: Annotated[
        str | None, typer.Option(help="System that the others should agree with, as in --systems.")
    ] = None,
    model: Models = None,
    topics: Topics = None,
    qrels: Qrels = None,
    sample: Sample = None,
    index: Index = None,
    candidates_only: Annotated[
        bool, typer.Option("--candidates-only", help="Encode only the candidates; sizes and times refer to them.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Compare MixLM with other systems on one page: quality, speed, size, and the queries where each loses."""
    from mixlm_rerank.data.measures import default_measures
    from mixlm_rerank.eval.harness import check_measures, check_names, evaluate_collection
    from mixlm_rerank.eval.report import answers, write_report
    from mixlm_rerank.eval.results import Evaluation, save_results
    from mixlm_rerank.eval.standings import standings
    from mixlm_rerank.systems.loading import Loading
    from mixlm_rerank.systems.machine import machine
    from mixlm_rerank.systems.specs import make_systems, name_of, unique

    measures = measure or list(default_measures(depth))
    check_measures(measures)
    loading = Loading(device, dtype, offline)
    places = open_places(collections, output, first_stage, topics, qrels, sample, index, loading, not quiet)
    named = make_systems(systems, open_models(model, loading), loading)
    made = unique(named)
    baseline, teacher = name_of(baseline, named), None if teacher is None else name_of(teacher, named)
    check_names(made, baseline, teacher)
    with resumable(output):
        results = [
            evaluate_collection(
                work,
                stage,
                made,
                measures=measures,
                depth=depth,
                baseline=baseline,
                teacher=teacher,
                candidates_only=candidates_only,
            )
            for work, stage in places
        ]
        names = list(results[0].systems[0].measures)
        created, command = datetime.now(UTC).isoformat("T", "seconds"), shlex.join(["mixlm-rerank", *sys.argv[1:]])
        evaluation = Evaluation(created, command, version("mixlm-rerank"), machine(), names, results)
        save_results(evaluation, output / "results.json")
        write_report(evaluation, output)
    typer.echo(f"{output}/report.html: {len(results)} collections, {len(made) + 2} systems", err=True)
    for found in answers(standings(evaluation)):
        typer.echo(f"{found.head} {found.text}")


def fit(
    collections: Annotated[
        list[str],
        typer.Argument(
            help="BEIR folders or irds:DATASET. Add @SPLIT for a split other than 'dev': DATA/msmarco@dl21."
        ),
    ],
    output: Output,
    systems: Systems = "cosine,mixlm",
    first_stage: FirstStageOption = "bm25",
    depth: Depth = 100,
    measure: Annotated[str, typer.Option("--measure", "-m", help="Measure to maximise.")] = "nDCG@10",
    model: Models = None,
    topics: Topics = None,
    qrels: Qrels = None,
    sample: Sample = None,
    index: Index = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Find the best weight of the first stage. Use development queries, never test queries."""
    from mixlm_rerank.eval.harness import check_measures, check_names
    from mixlm_rerank.eval.weights import Development, fit_weight
    from mixlm_rerank.systems.loading import Loading
    from mixlm_rerank.systems.ranked import FIRST_STAGE, find_candidates, rank
    from mixlm_rerank.systems.specs import make_systems, unique

    check_measures([measure])
    loading = Loading(device, dtype, offline)
    places = open_places(collections, output, first_stage, topics, qrels, sample, index, loading, not quiet, "dev")
    made = unique(make_systems(systems, open_models(model, loading), loading))
    check_names(made, FIRST_STAGE, None)
    with resumable(output):
        candidates = [find_candidates(work, stage, depth) for work, stage in places]
        for system in made:
            found = [
                Development(hits, rank(system, hits, work.restricted(hits.texts)).ranking, work.collection.qrels)
                for hits, (work, _) in zip(candidates, places, strict=True)
            ]
            typer.echo(f"{system.name}: {fit_weight(found, measure)}")


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of the first report, or its results.json.")],
    b: Annotated[Path, typer.Argument(help="Folder of the second report.")],
    html: Annotated[Path | None, typer.Option(help="Also write the comparison to this HTML file.")] = None,
) -> None:
    """Show what differs between two reports: quality, with paired tests, and speed."""
    from mixlm_rerank.eval.report.compared import compare_evaluations, comparison_html, comparison_text
    from mixlm_rerank.eval.results import load_results

    from ..data.lines import writing

    if html is not None:
        check_output(html)
    difference = compare_evaluations(load_results(a), load_results(b))
    typer.echo(comparison_text(difference))
    if html is not None:
        with writing(html) as file:
            file.write(comparison_html(difference))


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Long work that writes into ``output``. Raises InputError if that cannot be made; ends the process on Ctrl-C."""
    try:
        new = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {output}: {error.strerror or error}; choose another folder") from None
    try:
        yield
    except MixLMError:
        with suppress(OSError):  # unless something was written
            if new:
                output.rmdir()
        raise
    except KeyboardInterrupt:
        typer.echo(f"interrupted: run the same command again to go on; what {output} holds is safe", err=True)
        raise typer.Exit(130) from None
