"""A recipe carried out: stages I to III, a model in the end. Every step is kept, and not done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mixlm_rerank.data.lines import writing
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.systems.collections import Collection, judged_documents, sampled
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.members import Members
from mixlm_rerank.systems.ranked import find_candidates, slug
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.training.checkpoints import MODEL, check_inputs, content_of, digest_of, merged_arguments
from mixlm_rerank.training.development import DevelopmentSet, development_values
from mixlm_rerank.training.leakage import Forbidden, divided, left_out
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.processes import join_processes, locked, on_main_process
from mixlm_rerank.training.reasoning import read_judgements
from mixlm_rerank.training.recipe import CollectionPart, CrossEncoderPart, ReasoningPart, Recipe
from mixlm_rerank.training.sources import Pooled, first_stages, pooled, source, taught
from mixlm_rerank.training.stage1 import train_reasoning
from mixlm_rerank.training.stage2 import examples_of, train_cross_encoder
from mixlm_rerank.training.stage3 import train_joint
from mixlm_rerank.training.start import frozen_encoder, start

__all__ = ["run_recipe"]

OVERLAPS = "overlaps.json"


def run_recipe(
    recipe: Recipe, folder: str | Path, *, shared: Path | None = None, offline: bool = False, progress: bool = True
) -> Path:
    """Train as ``recipe`` says. Returns the folder of the model under ``folder``: ``model``, or ``cross-encoder/model``
    where the recipe ends with stage II.

    Queries that a ``never`` collection has too are left out, as are training queries that a development collection has;
    which ones is written to ``overlaps.json``, for stage I to ``reasoning/overlaps.json``.

    Called again after an interruption it goes on: candidate pools, teacher scores and stages that are there are not
    made again, and a stage that was begun goes on from its last checkpoint.

    ``shared``: where candidate pools, teacher scores and development candidates are kept, for several runs on the same
    collections; by default ``folder``.

    Raises InputError for what the recipe cannot be carried out with: see its parts.
    """
    return _Run(recipe, Path(folder), shared or Path(folder), offline, progress).carry_out()


@dataclass(frozen=True)
class _Run:
    recipe: Recipe
    folder: Path
    shared: Path
    offline: bool
    progress: bool

    def carry_out(self) -> Path:
        recipe, folder = self.recipe, self.folder
        join_processes()
        found = divided(recipe.collections, recipe.development, recipe.never)
        whole = TypeAdapter(Recipe).dump_python(replace(recipe, joint=recipe.joint.decisive), mode="json")
        development = digest_of(*((one.name, one.queries, one.qrels) for one in found.development))
        check_inputs(folder, {"recipe": json.dumps(whole, sort_keys=True), "set of development queries": development})
        with writing(folder / OVERLAPS) as file:
            json.dump(found.overlaps, file, indent=1)
        if recipe.reasoning is not None:
            self._stage_one(recipe.reasoning, found.forbidden)
        pools = [self._pooled(one, part) for one, part in zip(found.train, recipe.collections, strict=True)]
        if recipe.cross_encoder is not None:
            self._stage_two(recipe.cross_encoder, pools)
            if not recipe.steps:
                return folder / "cross-encoder" / MODEL
        watch = self._watch(found.development)
        mix = self._mix(pools, recipe.steps, recipe.queries, recipe.candidates)
        model = train_joint(
            start(recipe.model, self.offline, recipe.seed), mix, folder / "joint", recipe.joint, **watch
        )
        if recipe.ranker is not None:
            part = recipe.ranker
            mix = self._mix(pools, part.steps, part.queries, part.candidates)
            alone = replace(recipe.joint.ranker_alone(*part.learning_rates), save_every=part.save_every)
            model = train_joint(model, mix, folder / "ranker", alone, **watch)
        on_main_process(partial(model.save_pretrained, folder / MODEL, half=recipe.half))
        return folder / MODEL

    def _pooled(self, collection: Collection, part: CollectionPart) -> Pooled:
        depth = self.recipe.depth
        few = sampled(judged_documents(collection) if part.judged_only else collection, part.queries)
        folder = self.shared / f"pools-{depth}"
        with locked(folder):
            return pooled(few, part, depth, folder, Loading(offline=self.offline), progress=self.progress)

    def _stage_one(self, part: ReasoningPart, forbidden: Forbidden) -> None:
        folder = self.folder / "reasoning"
        made_by = {"checkpoint": content_of(part.checkpoint), "set of judgements": content_of(part.judgements)}
        check_inputs(folder, {**made_by, "set of queries not to be seen": digest_of(sorted(forbidden))})
        if (folder / MODEL).is_dir():
            return
        every = read_judgements(part.judgements)
        dropped = left_out(part.judgements, {one.query: one.query for one in every}, forbidden)
        with writing(folder / OVERLAPS) as file:
            json.dump(dropped, file, indent=1)
        own = {"max_length": part.max_length, "seed": self.recipe.seed, "local_files_only": self.offline}
        options = merged_arguments(part.arguments, own)
        train_reasoning(part.checkpoint, [one for one in every if one.query not in dropped], folder, **options)

    def _stage_two(self, part: CrossEncoderPart, pools: Sequence[Pooled]) -> None:
        folder = self.folder / "cross-encoder"
        sources = [source(own, part.labels) for own in pools]
        seed, draw, model = self.recipe.seed, self.recipe.draw, self.recipe.model
        mix = TrainingMix(sources, part.steps, queries=part.queries, candidates=part.candidates, draw=draw, seed=seed)
        at_start = model.start or model.item_encoder or ""
        models = [word for word, weight in part.members.items() if weight and word != "bm25"]
        teachers = {f"teacher {word}": content_of(word.partition(":")[2] or at_start) for word in models}
        made_by = {"checkpoint": content_of(part.start), "set of training data": mix.digest}
        check_inputs(folder, made_by | teachers)
        if (folder / MODEL).is_dir():
            return
        own = {
            "batch_size": part.queries,
            "learning_rate": part.learning_rate,
            "max_length": part.max_length,
            "loss": part.loss,
            "seed": seed,
            "local_files_only": self.offline,
        }
        options = merged_arguments(part.arguments, own)
        train_cross_encoder(part.start, examples_of(self._taught(mix, pools, part.members)), folder, **options)

    def _watch(self, held_out: Sequence[Collection]) -> dict[str, Any]:
        """What a joint training is watched by."""
        parts = zip(held_out, self.recipe.development, strict=True)
        sets = [self._development(whole, part) for whole, part in parts]
        budgets = sorted(set(self.recipe.joint.budgets))
        return {
            "seed": self.recipe.seed,
            "development": partial(development_values, sets=sets, budgets=budgets) if sets else None,
            "choose_by": f"k={budgets[-1]}" if sets else None,
            "progress": self.progress,
        }

    def _development(self, whole: Collection, part: CollectionPart) -> DevelopmentSet:
        collection, folder = sampled(whole, part.queries), self.shared / "development"
        indexes = folder / slug(whole.name)
        (stage,) = first_stages(part, indexes, Loading(offline=self.offline), progress=False)
        work = Workplace(replace(collection, name=whole.name), folder / slug(collection.name), indexes, progress=False)
        with locked(folder):
            candidates = find_candidates(work, stage, self.recipe.depth)
        return DevelopmentSet(whole.name, collection.queries, collection.qrels, candidates)

    def _mix(self, pools: Sequence[Pooled], steps: int, queries: int, candidates: int) -> TrainingMix:
        """Batches under the teacher of stage III."""
        teacher, seed, draw = self.recipe.teacher, self.recipe.seed, self.recipe.draw
        sources = [source(own, teacher.labels) for own in pools]
        mix = TrainingMix(sources, steps, queries=queries, candidates=candidates, draw=draw, seed=seed)
        return self._taught(mix, pools, teacher.members)

    def _taught(self, mix: TrainingMix, pools: Sequence[Pooled], weights: Mapping[str, float]) -> TrainingMix:
        """The same batches under the members of a teacher."""
        recipe = self.recipe
        weights = {word: weight for word, weight in weights.items() if weight}
        own = frozen_encoder(recipe, self.offline) if {"max-sim", "bi-encoder"} & weights.keys() else None
        dtype = "bfloat16" if recipe.joint.bf16 and bf16_pays() else "float32"
        models = Members(weights, Loading(None, dtype, self.offline), own)
        sources = []
        for pool, plain, wanted in zip(pools, mix.sources, mix.wanted(), strict=True):
            found = models.of(pool.documents(), pool.corpus, self.shared)
            members = list(zip(found, weights.values(), strict=True))
            sources.append(taught(plain, members, wanted, self.shared / "teachers", progress=self.progress))
        return mix.with_sources(sources)
