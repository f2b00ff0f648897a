"""Run a recipe: stages I to III, which result in a model. The result of every step is kept, and no step is repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter

from mixlm_rerank.data.lines import write_json
from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.running import bf16_pays
from mixlm_rerank.model.start import bi_encoder
from mixlm_rerank.systems.collections import Collection, sampled
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.members import Members
from mixlm_rerank.systems.ranked import find_candidates, slug
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.training.development import DevelopmentSet, watch
from mixlm_rerank.training.embeddings import (
    EmbeddingsPart,
    joint_embeddings,
    teacher_embeddings,
    texts_of,
    train_embeddings,
)
from mixlm_rerank.training.folder import (
    MODEL,
    check_inputs,
    content_of,
    digest_of,
    join_processes,
    locked,
    on_main_process,
)
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.recipe import CollectionPart, ModelPart, RankerPart, Recipe
from mixlm_rerank.training.sources import Forbidden, Pooled, divided, first_stages, left_out, pooled, selected, taught
from mixlm_rerank.training.stage1 import ReasoningPart, read_judgements, train_reasoning
from mixlm_rerank.training.stage2 import CrossEncoderPart, examples_of, train_cross_encoder
from mixlm_rerank.training.stage3 import train_joint

__all__ = ["run_recipe", "start"]

OVERLAPS = "overlaps.json"


def run_recipe(
    recipe: Recipe, folder: str | Path, *, shared: Path | None = None, offline: bool = False, progress: bool = True
) -> Path:
    """Train as ``recipe`` says. Returns the folder of the model under ``folder``: ``model``, or ``cross-encoder/model``
    where the recipe ends with stage II.

    Queries that also occur in a ``never`` collection are left out, and so are training queries that occur in a
    development collection. They are listed in ``overlaps.json``, for stage I in ``reasoning/overlaps.json``.

    Resumable: candidate pools, teacher scores and finished stages are reused, and an unfinished stage continues from
    its last checkpoint.

    ``shared``: folder of candidate pools, teacher scores and development candidates, for several runs on the same
    collections; by default ``folder``.

    Raises InputError if the recipe cannot be run: see its parts.
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
        train, held_out, forbidden, overlaps = divided(recipe)
        whole = TypeAdapter(Recipe).dump_python(replace(recipe, joint=recipe.joint.decisive), mode="json")
        development = digest_of(*((one.name, one.queries, one.qrels) for one in held_out))
        check_inputs(folder, {"recipe": json.dumps(whole, sort_keys=True), "set of development queries": development})
        write_json(folder / OVERLAPS, overlaps)
        if recipe.embeddings is not None:
            self._embeddings(recipe.embeddings, train)
        if recipe.reasoning is not None:
            self._stage_one(recipe.reasoning, forbidden)
        place, loading = self.shared / f"pools-{recipe.depth}", Loading(offline=self.offline)
        pools = [
            pooled(one, part, recipe.depth, place, loading, progress=self.progress)
            for one, part in zip(train, recipe.collections, strict=True)
        ]
        if recipe.cross_encoder is not None:
            self._stage_two(recipe.cross_encoder, pools)
            if not recipe.steps:
                return folder / "cross-encoder" / MODEL
        parts = zip(held_out, recipe.development, strict=True)
        watched = watch([self._development(whole, part) for whole, part in parts], recipe.joint.budgets)
        watched |= {"seed": recipe.seed, "progress": self.progress}
        model = start(recipe.model, self.offline, recipe.seed)
        recipe.joint.check_model(model)
        lessons = self._lessons(pools, recipe)
        model = train_joint(model, lessons, folder / "joint", recipe.joint, **watched)
        if recipe.ranker is not None:
            alone = recipe.joint.ranker_alone(*recipe.ranker.learning_rates)
            alone = replace(alone, save_every=recipe.ranker.save_every)
            model = train_joint(model, self._lessons(pools, recipe.ranker), folder / "ranker", alone, **watched)
        on_main_process(partial(model.save_pretrained, folder / MODEL, half=recipe.half))
        return folder / MODEL

    def _embeddings(self, part: EmbeddingsPart, train: Sequence[Collection]) -> None:
        folder, seed, loading = self.folder / "embeddings", self.recipe.seed, Loading(offline=self.offline)
        bi_encoder(part.start, hub={"local_files_only": self.offline})  # raises if it cannot become an item encoder
        parts = zip(train, self.recipe.collections, strict=True)
        texts = texts_of([selected(one, own) for one, own in parts], part.documents)
        checkpoints = {name: content_of(name) for name in (part.start, *part.teachers)}
        check_inputs(folder, {**checkpoints, "set of texts": digest_of(*texts)})
        if (folder / MODEL).is_dir():
            return
        place, options = self.shared / "teachers" / "embeddings", (part.max_length, loading)
        found = {name: teacher_embeddings(name, texts, place, *options, progress=self.progress) for name in checkpoints}
        taught_by = [found[name] for name in part.teachers]
        targets = joint_embeddings(taught_by, list(part.teachers.values()), found[part.start])
        train_embeddings(part, texts, targets, folder, seed=seed, loading=loading, progress=self.progress)

    def _stage_one(self, part: ReasoningPart, forbidden: Forbidden) -> None:
        folder = self.folder / "reasoning"
        made_by = {"checkpoint": content_of(part.checkpoint), "set of judgements": content_of(part.judgements)}
        check_inputs(folder, {**made_by, "set of queries not to be seen": digest_of(sorted(forbidden))})
        if (folder / MODEL).is_dir():
            return
        every = read_judgements(part.judgements)
        dropped = left_out(part.judgements, {one.query: one.query for one in every}, forbidden)
        write_json(folder / OVERLAPS, dropped)
        learned = [one for one in every if one.query not in dropped]
        train_reasoning(part, learned, folder, seed=self.recipe.seed, local_files_only=self.offline)

    def _stage_two(self, part: CrossEncoderPart, pools: Sequence[Pooled]) -> None:
        folder, model = self.folder / "cross-encoder", self.recipe.model
        mix = self._mix(pools, part, part.labels)
        at_start = model.start or model.item_encoder or ""
        models = [word for word, weight in part.members.items() if weight and word != "bm25"]
        teachers = {f"teacher {word}": content_of(word.partition(":")[2] or at_start) for word in models}
        check_inputs(folder, {"checkpoint": content_of(part.start), "set of training data": mix.digest, **teachers})
        if not (folder / MODEL).is_dir():
            examples = examples_of(self._taught(mix, pools, part.members))
            train_cross_encoder(part, examples, folder, seed=self.recipe.seed, local_files_only=self.offline)

    def _development(self, whole: Collection, part: CollectionPart) -> DevelopmentSet:
        collection, folder = sampled(whole, part.queries), self.shared / "development"
        indexes = folder / slug(whole.name)
        (stage,) = first_stages(part, indexes, Loading(offline=self.offline), progress=False)
        work = Workplace(replace(collection, name=whole.name), folder / slug(collection.name), indexes, progress=False)
        with locked(folder):
            candidates = find_candidates(work, stage, self.recipe.depth)
        return DevelopmentSet(whole.name, collection.queries, collection.qrels, candidates)

    def _lessons(self, pools: Sequence[Pooled], part: Recipe | RankerPart) -> TrainingMix:
        """Batches with the scores of stage III's teacher."""
        teacher = self.recipe.teacher
        return self._taught(self._mix(pools, part, teacher.labels), pools, teacher.members)

    def _mix(self, pools: Sequence[Pooled], part: Recipe | RankerPart | CrossEncoderPart, labels: float) -> TrainingMix:
        """Batches of the size that ``part`` sets, with labels only."""
        sources, seed, draw = [own.labelled(labels) for own in pools], self.recipe.seed, self.recipe.draw
        return TrainingMix(sources, part.steps, queries=part.queries, candidates=part.candidates, draw=draw, seed=seed)

    def _taught(self, mix: TrainingMix, pools: Sequence[Pooled], weights: Mapping[str, float]) -> TrainingMix:
        """The same batches with the weighted scores of a teacher's members added."""
        recipe = self.recipe
        weights = {word: weight for word, weight in weights.items() if weight}
        own = None
        if {"max-sim", "bi-encoder"} & weights.keys():  # a copy of the start: no model must teach itself
            own = start(recipe.model, self.offline, recipe.seed).item_encoder.eval()
        dtype = torch.bfloat16 if recipe.joint.bf16 and bf16_pays() else torch.float32
        models = Members(weights, Loading(None, str(dtype), self.offline), own)
        sources = []
        for pool, plain, wanted in zip(pools, mix.sources, mix.wanted(), strict=True):
            found = models.of(pool.documents(), pool.corpus, self.shared)
            members = list(zip(found, weights.values(), strict=True))
            sources.append(taught(plain, members, wanted, self.shared / "teachers", progress=self.progress))
        return mix.with_sources(sources)


def start(part: ModelPart, offline: bool, seed: int) -> MixLM:
    """Load the model that training starts from, in float32, on a GPU if there is one. ``seed``: of new weights.

    Raises InputError if no start is named, or it cannot be read.
    """
    if part.start is not None:
        model = MixLM.from_pretrained(part.start, dtype="float32", local_files_only=offline)
        if model.config.vectors:
            raise InputError(
                f"{part.start} takes vectors of your own, not texts: train it with mixlm-rerank distill --vectors"
            )
        return model
    if part.item_encoder is None or part.ranker is None:
        raise InputError("the recipe's model needs start (a saved MixLM), or item_encoder and ranker (checkpoints)")
    torch.manual_seed(seed)  # for projector and memory tokens
    try:
        model = MixLM.from_backbones(part.item_encoder, part.ranker, local_files_only=offline, **part.options)
    except TypeError as error:
        raise InputError(f"the recipe's model.options: {error}") from None
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
