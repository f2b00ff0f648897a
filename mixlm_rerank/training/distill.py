"""Distillation without labels: fit a MixLM to a corpus, with a teacher and queries (or none); measure its fidelity."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from tqdm import tqdm

from mixlm_rerank.data import Corpus
from mixlm_rerank.data.corpus import identify
from mixlm_rerank.data.lines import write_json, writing
from mixlm_rerank.data.measures import Fidelity, fidelity
from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.cross_encoder import PAIRS
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.scoring import FullTextScorer
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import BM25, FirstStage, RunFile
from mixlm_rerank.systems.mixlm import TokenReranker
from mixlm_rerank.systems.protocol import System
from mixlm_rerank.systems.ranked import Candidates, find_candidates, rank
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.training.development import as_taught, watch
from mixlm_rerank.training.folder import MODEL, check_inputs, content_of, digest_of, locked
from mixlm_rerank.training.mix import Source, TrainingMix
from mixlm_rerank.training.pools import Pool, corpus_pools, is_candidate, synthetic_queries
from mixlm_rerank.training.sources import plain
from mixlm_rerank.training.stage3 import JointOptions, train_joint
from mixlm_rerank.training.stage_trainer import STRICT, keep_model
from mixlm_rerank.training.teacher import Teacher, distill_plan, teacher_scores

__all__ = ["CutPart", "DistillOptions", "DistillRecipe", "check_cut", "distill"]

REPORT, QUERIES = "fidelity.json", "queries.tsv"
SAME = 0.01  # scores that differ by less, in log-odds or as a share, count as equal
CHOSEN_BY = 50  # at most this many training queries are left out of training, to choose the best checkpoint by


@dataclass(frozen=True, config=STRICT)
class DistillOptions:
    """How much training data there is, and how often it is read."""

    queries: int = Field(default=2000, ge=10)  # number made from the corpus if none are given
    held_out: float = Field(default=0.05, gt=0, lt=1)  # share of the queries that fidelity is measured on; at most 200
    depth: int = Field(default=100, ge=2)  # candidates of each query, by BM25
    # How many candidates per query are drawn once for training. In each round, joint training reads half of these, and
    # training of the ranker only reads all. The teacher scores those that are read.
    candidates: int = Field(default=16, ge=4)
    # How many of those are the top ones of the first stage and, in turn, of the start; the others are random
    hard: int = Field(default=8, ge=0)
    rounds: int = Field(default=1, ge=1)  # passes over the queries while item encoder and ranker train together
    ranker_rounds: int = Field(default=0, ge=0)  # passes after that, of only the ranker; these cost a fraction
    group: int = Field(default=16, ge=1)  # queries per step


@dataclass(frozen=True, config=STRICT)
class CutPart:
    """How the start is cut out of the teacher: see :meth:`MixLM.from_cross_encoder`."""

    mix_layer: int | None = Field(default=None, ge=1)
    tokens: int = Field(default=32, ge=1)
    fixed_documents: bool = False
    max_length: int = Field(default=512, ge=24)


@dataclass(frozen=True, config=STRICT)
class DistillRecipe:
    """The file that ``mixlm-rerank distill --config`` reads. Budgets above the model's largest are left out."""

    start: CutPart = field(default_factory=CutPart)
    options: DistillOptions = field(default_factory=DistillOptions)
    joint: JointOptions = field(default_factory=JointOptions)


def distill(
    corpus: Corpus,
    teacher: Teacher,
    teacher_system: System,
    model: MixLM,
    folder: str | Path,
    *,
    queries: Mapping[str, str] | None = None,
    first_stage: FirstStage | None = None,
    vectors: TokenIndex | None = None,
    options: DistillOptions = DistillOptions(),
    joint: JointOptions = JointOptions(),
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Fidelity]:
    """Train ``model`` to rank this corpus as the teacher does, and save it as ``model`` under ``folder``. Resumable.

    Of the start and all checkpoints, the one that agrees best with the teacher on up to 50 queries is kept. These are
    neither trained on nor reported: up to chance, the result is no worse than the start.

    Args:
        teacher, teacher_system: the same cross-encoder, to learn from and to be compared with.
        queries: qid -> text, for example of a query log; None: titles and sentences of the corpus.
        first_stage: where candidates come from; None: BM25 by Pyserini.
        vectors: for a ``model`` whose documents are vectors, the index of these; the teacher reads the corpus's texts.
            Without an item encoder, only ranker and projector are trained, by those losses of the last phase that do
            not belong to the item encoder.

    Returns:
        system -> fidelity to the teacher on queries that were not trained on: the model at each of its budgets, and
        "start k=...", the model at the start. Also in fidelity.json.

    Raises:
        InputError: too few queries, or a corpus that yields none; ``vectors`` that lack candidates of the first stage,
            or are given for a model that reads texts.
    """
    folder = Path(folder)
    if (vectors is None) == bool(model.config.vectors):
        lack = "give the index of their vectors (--vectors INDEX)" if vectors is None else "leave out the vectors"
        raise InputError(f"documents of {model.name} are {'vectors' if model.config.vectors else 'texts'}: {lack}")
    if vectors is not None:
        joint = joint.ranker_alone(*joint.learning_rates[1:])
    joint.check_model(model)
    stage = first_stage or BM25(folder / "lucene", progress=progress)
    asked = dict(queries) if queries is not None else synthetic_queries(corpus, options.queries, seed)
    training, held_out = _divided(asked, options.held_out, seed)
    alone = joint.ranker_alone(*joint.learning_rates[1:]) if options.ranker_rounds else joint
    check_inputs(
        folder,
        {
            "corpus": identify(corpus).digest[:16],
            "set of queries": digest_of(sorted(asked.items())),
            "first stage": content_of(stage.path) if isinstance(stage, RunFile) else stage.name,
            "teacher": teacher_system.description,
            "model": weights_hash(model),
            "configuration of the model": digest_of(model.config),
            "setting": digest_of(options, joint.decisive, seed),
            "index of vectors": "" if vectors is None else vectors.digest(),
        },
    )
    if queries is None:
        with writing(folder / QUERIES) as file:
            file.writelines(f"{qid}\t{text}\n" for qid, text in asked.items())
    path = folder / "teacher.npy"
    with locked(folder):
        both = {**training, **held_out}
        collection = Collection("corpus", corpus, both, {qid: {} for qid in both})
        work = Workplace(collection, folder, folder, progress, vectors)
        candidates = find_candidates(work, stage, options.depth)
        texts, work = candidates.texts, work.restricted(candidates.texts)
        if vectors is not None:
            work.index(model)  # raises if it lacks a candidate
        drawn = {"size": options.candidates, "hard": options.hard, "seed": seed}
        pools = corpus_pools(folder / "pools.jsonl", _of(candidates, training), work, model, **drawn)
        watched = max(1, min(CHOSEN_BY, len(pools) // 20))
        mixes = _mixes(pools[watched:], candidates, vectors, options, seed)
        wanted = is_candidate(pools)  # all scores of the first ``watched`` pools, and those of the others that are read
        (read,) = np.logical_or.reduce([mix.wanted() for mix in mixes.values()])
        wanted[watched:] = False
        wanted[watched:, : read.shape[1]] = read
        measured_on = _of(candidates, held_out)
        if progress and not path.exists():
            compared = sum(map(len, measured_on.of_query.values()))
            plan = distill_plan(teacher, pools, texts, int(wanted.sum()), compared, model, mixes, joint)
            tqdm.write(f"{folder}: {plan}", file=sys.stderr)
        measure = partial(_measured, teacher_system, measured_on, work, sorted(set(joint.budgets)))
        found = measure(model, "start ")
        scores = teacher_scores(path, teacher, pools, texts, wanted=wanted, progress=progress)
    if not (folder / MODEL).is_dir():
        chosen_by = watch([as_taught(pools[:watched], texts, scores, candidates.titles, vectors)], joint.budgets)
        for name, mix in mixes.items():
            (source,) = mix.sources
            taught = mix.with_sources([replace(source, scores=scores[watched:, : source.scores.shape[1]])])
            how = joint if name == "joint" else alone
            model = train_joint(model, taught, folder / name, how, seed=seed, progress=progress, **chosen_by)
        keep_model(folder, model.save_pretrained, [folder / name / MODEL for name in mixes])
    model = MixLM.from_pretrained(folder / MODEL, device=model.device, dtype="float32")
    with locked(folder):
        found |= measure(model, "")
    write_json(folder / REPORT, {name: asdict(value) for name, value in found.items()})
    return found


def check_cut(model: MixLM, teacher: Teacher, name: str) -> None:
    """Raises InputError if the teacher scores pairs differently from ``model``, which was just cut out of it."""
    queries, texts = zip(*PAIRS, strict=True)
    both = (FullTextScorer(model), teacher)
    own, theirs = (np.concatenate(one.score_batch(queries, [[text] for text in texts])) for one in both)
    if not np.allclose(own, theirs, rtol=SAME, atol=SAME):
        raise InputError(
            f"{name!r} scores two pairs {theirs} in sentence-transformers, but {own} when a model is cut out of it: it "
            "reads them with another prompt. Train another start (--model default); or cut one with the right prompt "
            "by MixLM.from_cross_encoder(prompt=...), save it, and give it as --model with --teacher full-text"
        )


def _divided(queries: Mapping[str, str], share: float, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Training queries and held-out queries; of equal ones (by letters and digits) one is kept."""
    texts = {plain(queries[qid]): qid for qid in sorted(queries)}  # independent of their order
    qids = sorted(texts.values())
    random.Random(seed).shuffle(qids)
    count = min(200, max(1, round(share * len(qids))))
    if len(qids) < 2 * count or len(qids) < 10:
        raise InputError(f"{len(qids)} different queries are too few to train on some and measure on others: give 10")
    return {qid: queries[qid] for qid in qids[count:]}, {qid: queries[qid] for qid in qids[:count]}


def _mixes(
    learned: Sequence[Pool], candidates: Candidates, vectors: TokenIndex | None, options: DistillOptions, seed: int
) -> dict[str, TrainingMix]:
    """The batches of each part of the training, before there are teacher scores."""
    unknown = np.full(is_candidate(learned).shape, np.nan, dtype=np.float32)
    source = Source("corpus", learned, candidates.texts, unknown, titles=candidates.titles, vectors=vectors)
    parts = {"joint": (options.rounds, options.candidates // 2), "ranker": (options.ranker_rounds, options.candidates)}
    counts = {name: max(1, rounds * len(learned) // options.group) for name, (rounds, _) in parts.items() if rounds}
    return {
        name: TrainingMix([source], count, queries=options.group, candidates=parts[name][1], seed=seed)
        for name, count in counts.items()
    }


def _of(candidates: Candidates, queries: Mapping[str, str]) -> Candidates:
    """The candidates of some queries."""
    return replace(candidates, of_query={qid: hits for qid, hits in candidates.of_query.items() if qid in queries})


def _measured(
    teacher: System, candidates: Candidates, work: Workplace, budgets: Sequence[int], model: MixLM, prefix: str
) -> dict[str, Fidelity]:
    """Fidelity at every budget, on all candidates of the held-out queries."""
    if not candidates.of_query:
        raise InputError(f"{candidates.first_stage} finds no candidates for any of the queries held out")
    wanted = {hit.docid for hits in candidates.of_query.values() for hit in hits}
    collection = replace(work.restricted(wanted).collection, name="held-out queries")
    work = replace(work, collection=collection, folder=work.folder / "held-out")
    taught = rank(teacher, candidates, work).ranking
    found = {}
    for budget in budgets:
        system = TokenReranker(model, budget)
        system.name = f"{prefix}k={budget}"
        found[system.name] = fidelity(rank(system, candidates, work).ranking, taught)
    return found
