"""A recipe carried out: stages I to III, a model in the end. Every step is kept, and not done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from mixlm_rerank.data.lines import writing
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection, open_collection, sampled
from mixlm_rerank.eval.hybrid import HybridWeights
from mixlm_rerank.eval.loading import Loading
from mixlm_rerank.eval.ranked import find_candidates, slug
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.training.checkpoints import same_inputs
from mixlm_rerank.training.cross_encoder import CrossEncoderTeacher
from mixlm_rerank.training.development import DevelopmentSet, development_values
from mixlm_rerank.training.guard import without_queries
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.reasoning import read_judgements
from mixlm_rerank.training.recipe import (
    CollectionPart,
    CrossEncoderPart,
    ModelPart,
    ReasoningPart,
    Recipe,
)
from mixlm_rerank.training.sources import Pooled, Scoring, first_stage, pooled, source, taught
from mixlm_rerank.training.stage1 import train_reasoning
from mixlm_rerank.training.stage2 import examples_of, train_cross_encoder
from mixlm_rerank.training.stage3 import train_joint

__all__ = ["run_recipe"]

OVERLAPS = "overlaps.json"
MODEL = "model"


def run_recipe(
    recipe: Recipe, folder: str | Path, *, shared: Path | None = None, offline: bool = False, progress: bool = True
) -> Path:
    """Train as ``recipe`` says. Returns the folder of the model, ``model`` under ``folder``.

    Queries that a ``never`` collection has too are left out, as are training queries that a development collection has;
    which ones is written to ``overlaps.json``.

    Called again after an interruption it goes on: candidate pools, teacher scores and stages that are there are not
    made again, and a stage that was begun goes on from its last checkpoint.

    ``shared``: where candidate pools, the hybrid teacher's scores and development candidates are kept, for several runs
    on the same collections; by default ``folder``.

    Raises InputError for what the recipe cannot be carried out with: see its parts.
    """
    folder = Path(folder)
    shared = shared or folder
    same_inputs(folder, {"recipe": json.dumps(TypeAdapter(Recipe).dump_python(recipe, mode="json"), sort_keys=True)})
    collections, held_out = _collections(recipe, folder / OVERLAPS)
    if recipe.reasoning is not None:
        _stage_one(recipe.reasoning, folder / "reasoning", offline)
    pairs = zip(collections, recipe.collections, strict=True)
    place = shared / f"pools-{recipe.depth}"
    pools = [pooled(one, part, recipe.depth, place, progress=progress) for one, part in pairs]
    if recipe.cross_encoder is not None:
        _stage_two(recipe.cross_encoder, recipe, pools, folder / "cross-encoder", shared, offline, progress)
    sets = [
        _development(whole, part, shared / "development", recipe.depth)
        for whole, part in zip(held_out, recipe.development, strict=True)
    ]
    budgets = sorted(set(recipe.joint.budgets))
    watched: dict[str, Any] = {
        "seed": recipe.seed,
        "development": partial(development_values, sets=sets, budgets=budgets) if sets else None,
        "choose_by": f"k={budgets[-1]}" if sets else None,
        "progress": progress,
    }
    size = (recipe.steps, recipe.queries, recipe.candidates)
    mix = _mix(recipe, pools, size, folder / "teacher", shared, offline, progress)
    model = train_joint(_start(recipe.model, offline), mix, folder / "joint", recipe.joint, **watched)
    if recipe.ranker is not None:
        part = recipe.ranker
        mix = _mix(
            recipe, pools, (part.steps, part.queries, part.candidates), folder / "teacher", shared, offline, progress
        )
        alone = replace(recipe.joint.ranker_alone(*part.learning_rates), save_every=part.save_every)
        model = train_joint(model, mix, folder / "ranker", alone, **watched)
    model.save_pretrained(folder / MODEL, half=recipe.half)
    return folder / MODEL


def _collections(recipe: Recipe, overlaps: Path) -> tuple[list[Collection], list[Collection]]:
    """To train on and to choose by, without the queries that neither may see."""
    never = _queries([open_collection(part.source, part.split) for part in recipe.never])
    held_out = [open_collection(part.source, part.split) for part in recipe.development]
    held_out, chosen_from_tests = _without(held_out, never)
    collections = [open_collection(part.source, part.split) for part in recipe.collections]
    collections, trained_on_tests = _without(collections, {**never, **_queries(held_out)})
    with writing(overlaps) as file:
        json.dump(chosen_from_tests | trained_on_tests, file, indent=1)
    return [sampled(one, part.queries) for one, part in zip(collections, recipe.collections, strict=True)], held_out


def _queries(collections: Sequence[Collection]) -> dict[str, list[str]]:
    return {one.name: list(one.queries.values()) for one in collections}


def _without(
    collections: Sequence[Collection], forbidden: Mapping[str, Sequence[str]]
) -> tuple[list[Collection], dict[str, dict[str, str]]]:
    """The collections without forbidden queries; name -> qid -> where else it is."""
    pairs = [without_queries(one, forbidden) for one in collections]
    return [one for one, _ in pairs], {one.name: found for one, found in pairs if found}


def _stage_one(part: ReasoningPart, folder: Path, offline: bool) -> None:
    if not (folder / MODEL).is_dir():
        judgements = read_judgements(part.judgements)
        options = {**part.arguments, "max_length": part.max_length, "local_files_only": offline}
        train_reasoning(part.checkpoint, judgements, folder, **options)


def _stage_two(
    part: CrossEncoderPart,
    recipe: Recipe,
    pools: Sequence[Pooled],
    folder: Path,
    shared: Path,
    offline: bool,
    progress: bool,
) -> None:
    if (folder / MODEL).is_dir():
        return
    sources = [source(own, part.labels) for own in pools]
    mix = TrainingMix(sources, part.steps, queries=part.queries, candidates=part.candidates, seed=recipe.seed)
    mix = _taught(mix, recipe, pools, part.hybrid, shared, [], offline, progress)
    options = {
        **part.arguments,
        "batch_size": part.queries,
        "learning_rate": part.learning_rate,
        "max_length": part.max_length,
        "seed": recipe.seed,
        "local_files_only": offline,
    }
    train_cross_encoder(part.start, examples_of(mix), folder, **options)


def _mix(
    recipe: Recipe,
    pools: Sequence[Pooled],
    size: tuple[int, int, int],
    folder: Path,
    shared: Path,
    offline: bool,
    progress: bool,
) -> TrainingMix:
    """``size``: steps, queries a step, candidates a query."""
    teacher, readers = recipe.teacher, []
    if teacher.cross_encoder is not None:
        reader = CrossEncoderTeacher(teacher.cross_encoder, Loading(None, "float32", offline))
        readers.append(Scoring(reader, teacher.cross_encoder_weight, folder))
    sources = [source(own, teacher.labels) for own in pools]
    steps, queries, candidates = size
    mix = TrainingMix(sources, steps, queries=queries, candidates=candidates, seed=recipe.seed)
    return _taught(mix, recipe, pools, teacher.hybrid, shared, readers, offline, progress)


def _taught(
    mix: TrainingMix,
    recipe: Recipe,
    pools: Sequence[Pooled],
    weights: HybridWeights,
    shared: Path,
    others: Sequence[Scoring],
    offline: bool,
    progress: bool,
) -> TrainingMix:
    """The same batches under the hybrid teacher, if any of its weights is not 0, and ``others``."""
    name, encoder = "", None
    if any(astuple(weights)):
        encoder = _frozen_encoder(recipe, offline)
        parts = [*(f"{weight:g}" for weight in astuple(weights)), str(recipe.depth), weights_hash(encoder)]
        name = "-".join(["hybrid", *parts])
    sources = []
    for own, plain, wanted in zip(pools, mix.sources, mix.wanted(), strict=True):
        hybrid = [] if encoder is None else [Scoring(own.hybrid(encoder, weights), 1.0, shared / name)]
        sources.append(taught(plain, [*hybrid, *others], wanted, progress=progress))
    return mix.with_sources(sources)


def _start(part: ModelPart, offline: bool) -> MixLM:
    if part.start is not None:
        return MixLM.from_pretrained(part.start, device="cpu", dtype="float32", local_files_only=offline)
    if part.item_encoder is None or part.ranker is None:
        raise InputError("the recipe's model needs start (a saved MixLM), or item_encoder and ranker (checkpoints)")
    return _new(part.item_encoder, part.ranker, part.options, offline)


def _new(item_encoder: str, ranker: str, options: Mapping[str, Any], offline: bool) -> MixLM:
    try:
        return MixLM.from_backbones(item_encoder, ranker, local_files_only=offline, **options)
    except TypeError as error:
        raise InputError(f"the recipe's model.options: {error}") from None


def _frozen_encoder(recipe: Recipe, offline: bool) -> ItemEncoder:
    """The late-interaction teacher's own copy: what is trained must not teach itself."""
    chosen = recipe.teacher.encoder or recipe.model.item_encoder
    if chosen is None:
        encoder = _start(recipe.model, offline).item_encoder.eval()
    else:
        options = {**recipe.model.options, "tokens": 1, "memory_tokens": 0}
        encoder = _new(chosen, chosen, options, offline).item_encoder
    return encoder.to(torch.bfloat16) if recipe.joint.bf16 else encoder


def _development(whole: Collection, part: CollectionPart, folder: Path, depth: int) -> DevelopmentSet:
    collection = sampled(whole, part.queries)
    indexes = folder / slug(whole.name)
    stage = first_stage(part, indexes / "lucene", progress=False)
    work = Workplace(replace(collection, name=whole.name), folder / slug(collection.name), indexes, progress=False)
    return DevelopmentSet(whole.name, collection.queries, collection.qrels, find_candidates(work, stage, depth))
