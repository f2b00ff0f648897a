"""A recipe carried out: pools, teacher, joint training, a model in the end. Every step is kept, and not done twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import Collection, open_collection, sampled
from mixlm_rerank.eval.first_stages import BM25, FirstStage, RunFile
from mixlm_rerank.eval.ranked import find_candidates, slug
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.training.checkpoints import same_inputs
from mixlm_rerank.training.development import DevelopmentSet, development_values
from mixlm_rerank.training.guard import refuse_queries
from mixlm_rerank.training.hybrid import HybridTeacher
from mixlm_rerank.training.mix import Source, TrainingMix
from mixlm_rerank.training.pools import Pool, make_pools, read_pools, write_pools
from mixlm_rerank.training.recipe import CollectionPart, ModelPart, Recipe
from mixlm_rerank.training.stage3 import train_joint

__all__ = ["run_recipe"]


def run_recipe(recipe: Recipe, folder: str | Path, *, offline: bool = False, progress: bool = True) -> Path:
    """Train as ``recipe`` says. Returns the folder of the model, ``model`` under ``folder``.

    Called again after an interruption it goes on: candidate pools that are there are not made again, and the joint
    training goes on from its last checkpoint.

    Raises InputError for what the recipe cannot be carried out with: see its parts.
    """
    folder = Path(folder)
    same_inputs(folder, {"recipe": json.dumps(TypeAdapter(Recipe).dump_python(recipe, mode="json"), sort_keys=True)})
    collections = [sampled(open_collection(part.source, part.split), part.queries) for part in recipe.collections]
    never = _queries(recipe.never)
    development = _queries(recipe.development)
    training = [(one.name, query) for one in collections for query in one.queries.values()]
    refuse_queries(training, {**never, **development})
    refuse_queries([(name, query) for name, queries in development.items() for query in queries], never)
    model = _start(recipe.model, offline)
    encoder = _frozen_encoder(recipe, offline)
    sources = [
        _source(collection, part, recipe, encoder, folder / "pools", progress)
        for collection, part in zip(collections, recipe.collections, strict=True)
    ]
    mix = TrainingMix(sources, recipe.steps, queries=recipe.queries, candidates=recipe.candidates, seed=recipe.seed)
    sets = [_development(part, folder / "development", recipe.depth) for part in recipe.development]
    budgets = sorted({min(recipe.joint.budgets), max(recipe.joint.budgets)})
    trained = train_joint(
        model,
        mix,
        folder / "joint",
        recipe.joint,
        seed=recipe.seed,
        development=partial(development_values, sets=sets, budgets=budgets) if sets else None,
        choose_by=f"k={budgets[-1]}" if sets else None,
        progress=progress,
    )
    trained.save_pretrained(folder / "model")
    return folder / "model"


def _start(part: ModelPart, offline: bool) -> MixLM:
    if part.start is not None:
        return MixLM.from_pretrained(part.start, device="cpu", dtype="float32", local_files_only=offline)
    if part.item_encoder is None or part.ranker is None:
        raise InputError("the recipe's model needs start (a saved MixLM), or item_encoder and ranker (checkpoints)")
    try:
        return MixLM.from_backbones(part.item_encoder, part.ranker, local_files_only=offline, **part.options)
    except TypeError as error:
        raise InputError(f"the recipe's model.options: {error}") from None


def _queries(parts: Sequence[CollectionPart]) -> dict[str, list[str]]:
    opened = [open_collection(part.source, part.split) for part in parts]
    return {one.name: list(one.queries.values()) for one in opened}


def _frozen_encoder(recipe: Recipe, offline: bool) -> ItemEncoder:
    """The late-interaction teacher's own copy: what is trained must not teach itself."""
    source = recipe.teacher.encoder
    if source is not None:
        return MixLM.from_backbones(source, source, tokens=1, local_files_only=offline).item_encoder
    return _start(recipe.model, offline).item_encoder.eval()


def _source(
    collection: Collection, part: CollectionPart, recipe: Recipe, encoder: ItemEncoder, folder: Path, progress: bool
) -> Source:
    name = slug(collection.name)
    path = folder / f"{name}.jsonl"
    if not path.exists():
        stage = _first_stage(part, folder / f"{name}.lucene", progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pools(path, make_pools(collection, [stage], depth=recipe.depth, size=recipe.depth))
    pools = read_pools(path)
    wanted = {docid for pool in pools for docid in pool.docids}
    texts = {document.docid: document.content for document in collection.corpus or () if document.docid in wanted}
    everything = [document.content for document in collection.corpus or () if document.content.strip()]
    return Source(
        collection.name,
        pools,
        texts,
        encoder.embed_queries([pool.query for pool in pools]).numpy(),
        HybridTeacher(encoder, everything, recipe.teacher.hybrid),
        part.weight,
        _highest_grade(pools),
        recipe.teacher.labels,
    )


def _first_stage(part: CollectionPart, index: Path, progress: bool = False) -> FirstStage:
    return BM25(index, progress=progress) if part.run is None else RunFile(part.run)


def _highest_grade(pools: Sequence[Pool]) -> int:
    return max(grade for pool in pools for grade in pool.judged.values())


def _development(part: CollectionPart, folder: Path, depth: int) -> DevelopmentSet:
    whole = open_collection(part.source, part.split)
    collection = sampled(whole, part.queries)
    indexes = folder / slug(whole.name)
    stage = _first_stage(part, indexes / "lucene")
    work = Workplace(replace(collection, name=whole.name), folder / slug(collection.name), indexes, progress=False)
    return DevelopmentSet(whole.name, collection.queries, collection.qrels, find_candidates(work, stage, depth))
