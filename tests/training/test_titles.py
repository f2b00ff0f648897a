"""Training reads titles beside embedding tokens: in every part of a batch, while it is watched, and to some purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mixlm_rerank import MixLM
from mixlm_rerank.data import open_corpus
from mixlm_rerank.errors import InputError
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer
from mixlm_rerank.systems.ranked import Candidates
from mixlm_rerank.training.development import DevelopmentSet, development_values
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights, listwise
from mixlm_rerank.training.mix import Batch, Source, TrainingMix
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.training.recipe import load_recipe
from mixlm_rerank.training.run import run_recipe
from mixlm_rerank.training.stage3 import JointOptions, train_joint
from mixlm_rerank.types import Candidate

TITLES = ["dog", "cat", "moon", "bread", "mail", "the rock"]
DOCIDS = [f"d{number}" for number in range(len(TITLES))]
OF_DOCIDS = dict(zip(DOCIDS, TITLES, strict=True))
LISTWISE = JointOptions(
    phases=(LossWeights(listwise=1),),
    budgets=(2,),
    learning_rates=(0, 3e-3, 3e-3),
    freeze_embeddings=False,
    save_every=100,
)


@pytest.fixture
def source() -> Source:
    """Documents whose texts are alike: which one answers stands in the titles alone."""
    pools = [Pool(f"q{number}", title, DOCIDS, {DOCIDS[number]: 1}) for number, title in enumerate(TITLES)]
    scores = 6 * np.eye(len(TITLES), dtype=np.float32)
    return Source("titled", pools, dict.fromkeys(DOCIDS, "it is"), scores, titles=OF_DOCIDS)


def test_what_stands_in_titles_alone_is_learnt(fresh: Callable[..., MixLM], source: Source, tmp_path: Path) -> None:
    """Without its titles the same model gives all documents one score."""
    mix = TrainingMix([source], 40, queries=6, candidates=6)
    start = fresh(residual="none", tokens=2, title_tokens=2)
    model = train_joint(start, mix, tmp_path / "run", LISTWISE, progress=False)
    hits = {pool.qid: [Candidate(docid, 0.0) for docid in DOCIDS] for pool in source.pools}
    watched = DevelopmentSet(
        "titled",
        {pool.qid: pool.query for pool in source.pools},
        {pool.qid: pool.judged for pool in source.pools},
        Candidates("all", 6, hits, source.texts, titles=OF_DOCIDS),
    )
    assert development_values(model, [watched], [2], "RR@10")["k=2"] == 1
    tokens = torch.from_numpy(model.encode(["it is"] * 6))
    assert SharedPrefixScorer(model).score("bread", tokens).std() < 1e-4
    assert SharedPrefixScorer(model).score("bread", tokens, model.ranker.titles(TITLES)).argmax() == 3
    with pytest.raises(InputError, match="begun with another model to start from"):
        train_joint(fresh(residual="none", tokens=2), mix, tmp_path / "run", LISTWISE, progress=False)


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_losses_are_those_of_the_scorers_in_pieces_too(
    fresh: Callable[..., MixLM], source: Source, architecture: str
) -> None:
    model = fresh(architecture, tokens=2, title_tokens=3)
    torch.nn.init.normal_(model.readout.score.weight)
    pools = [
        replace(pool, docids=[DOCIDS[(number + step) % 6] for step in range(3)])
        for number, pool in enumerate(source.pools)
    ]
    source = replace(source, pools=pools, texts=OF_DOCIDS, scores=6 * np.eye(6, 3, dtype=np.float32))
    batch = TrainingMix([source], 1, queries=4, candidates=3)[0]
    tokens, titles = torch.from_numpy(model.encode(batch.documents)), model.ranker.titles(batch.titles)
    scores = torch.stack([ReferenceScorer(model).score(query, tokens, titles) for query in batch.queries])
    expected = float(listwise(batch.teacher, scores, batch.mask))
    objective, weights = JointObjective(model), LossWeights(listwise=1)
    with torch.no_grad():
        whole = objective(batch, weights, [2])["loss"]
        pieces = [objective(piece, weights, [2], whole=batch)["loss"] for piece in batch.pieces(3)]
        untitled = objective(replace(batch, titles=[]), weights, [2])["loss"]
    assert float(whole) == pytest.approx(expected, abs=1e-3)
    assert float(sum(pieces)) == pytest.approx(expected, abs=1e-3)
    assert abs(float(untitled) - expected) > 1e-2


def test_gradients_reach_the_word_embeddings_of_titles(fresh: Callable[..., MixLM], source: Source) -> None:
    model = fresh(tokens=2, title_tokens=3, residual="none")
    torch.nn.init.normal_(model.readout.score.weight)
    batch = TrainingMix([source], 1, queries=1, candidates=6)[0]
    JointObjective(model)(batch, LossWeights(listwise=1), [2])["loss"].backward()
    gradient = model.ranker.backbone.get_input_embeddings().weight.grad
    rows = {int(token) for token in model.ranker.titles(batch.titles).flatten() if token >= 0}
    assert gradient is not None and all(gradient[row].any() for row in rows)


def test_a_recipe_reads_the_titles_of_its_collections(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []
    watched: list[DevelopmentSet] = []
    forward = JointObjective.forward

    def read(self: JointObjective, batch: Batch, *given: Any, **named: Any) -> Any:
        batches.append(batch)
        return forward(self, batch, *given, **named)

    def measured(model: MixLM, sets: list[DevelopmentSet], budgets: list[int]) -> dict[str, float]:
        watched.extend(sets)
        return development_values(model, sets, budgets)

    monkeypatch.setattr(JointObjective, "forward", read)
    monkeypatch.setattr("mixlm_rerank.training.development.development_values", measured)
    run = {"source": "{data}", "first_stages": [f"run:{beir}/run.trec"]}
    path = recipe(collections=[run | {"split": "test"}], development=[run | {"split": "dev"}])
    values = yaml.safe_load(path.read_text())
    values["model"]["options"]["title_tokens"] = 4
    path.write_text(yaml.safe_dump(values))
    folder = run_recipe(load_recipe(path, {"data": str(beir)}), tmp_path / "run", progress=False)
    assert MixLM.from_pretrained(folder).config.title_tokens == 4
    documents = list(open_corpus(str(beir)))
    titles = {document.content: document.title for document in documents}
    assert batches and all(batch.titles == [titles[text] for text in batch.documents] for batch in batches)
    assert any(any(batch.titles) for batch in batches)
    assert watched and all(one.candidates.titles == {d.docid: d.title for d in documents} for one in watched)
