"""Distillation where documents are vectors of the user: the teacher reads their texts, the student the vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mixlm_rerank import Candidate, Document, MixLM, Reranker, ScoredDoc, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.systems.protocol import by_score
from mixlm_rerank.training.distill import DistillOptions, distill
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights, listwise
from mixlm_rerank.training.mix import Source, TrainingMix
from mixlm_rerank.training.stage3 import JointOptions

DOCIDS = [f"d{number}" for number in range(20)]
QUERIES = {f"q{number}": f"dog cat moon {number}" for number in range(40)}


class OtherReadout:
    """A teacher that the model can become: itself, with another readout. It knows of each document its text alone."""

    name, description, kind, tokens, pointwise, seed_group = "other", "other", "other", None, True, None

    def __init__(self, model: MixLM, index: TokenIndex) -> None:
        torch.nn.init.normal_(model.readout.score.weight, generator=torch.Generator().manual_seed(0))
        self._model, self._index = model, index

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
        found = [self._index.fetch([text.removeprefix("picture of ") for text in own]).tokens for own in texts]
        scorer = SharedPrefixScorer(self._model)
        return [
            scorer.score(*pair).double().numpy() for pair in zip(queries, map(torch.from_numpy, found), strict=True)
        ]

    def prepare(self, work: object) -> None:
        """Nothing to prepare."""

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return by_score(candidates, self.score_batch([query], [[hit.text or "" for hit in candidates]])[0])


class Everything(FirstStage):
    """A first stage that finds all documents, whatever is asked."""

    name = "everything"

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        return {qid: [Candidate(docid, 0.0) for docid in DOCIDS] for qid in collection.queries}


@pytest.fixture
def model(fresh: Callable[..., MixLM]) -> MixLM:
    return fresh("bert", vectors=5, tokens=2)


@pytest.fixture
def captions() -> list[Document]:
    return [Document(docid, f"picture of {docid}") for docid in DOCIDS]


@pytest.fixture
def index(model: MixLM, tmp_path: Path) -> TokenIndex:
    vectors = np.random.default_rng(0).standard_normal((20, 2, 5))
    return TokenIndex.from_vectors(DOCIDS, vectors, model, tmp_path / "vectors", progress=False)


def test_the_loss_is_that_of_the_scorers_over_the_vectors(model: MixLM, source: Source, tmp_path: Path) -> None:
    """Of a whole batch and of its pieces, whose documents are fewer and in another order."""
    torch.nn.init.normal_(model.readout.score.weight)
    vectors = np.random.default_rng(0).standard_normal((len(source.texts), 2, 5))
    index = TokenIndex.from_vectors([*source.texts], vectors, model, tmp_path / "of-all", progress=False)
    given = Source("tiny", source.pools, source.texts, source.scores, vectors=index)
    whole = TrainingMix([given], 1, queries=3, candidates=3)[0]
    docid_of = {text: docid for docid, text in source.texts.items()}
    for batch in (whole, *whole.pieces(1)):
        with torch.no_grad():
            found = JointObjective(model)(batch, LossWeights(listwise=1), [1])["loss"]
        tokens = torch.from_numpy(index.fetch([docid_of[text] for text in batch.documents], 1).tokens)
        scores = torch.stack([ReferenceScorer(model).score(query, tokens) for query in batch.queries])
        assert float(found) == pytest.approx(float(listwise(batch.teacher, scores, batch.mask)), abs=1e-3)


def test_what_is_learned_holds_for_queries_held_out_and_the_index_stays_valid(
    fresh: Callable[..., MixLM], model: MixLM, captions: list[Document], index: TokenIndex, tmp_path: Path
) -> None:
    teacher = OtherReadout(fresh("bert", vectors=5, tokens=2), index)
    before = index.digest()
    found = distill(
        captions,
        teacher,
        teacher,  # type: ignore[arg-type]
        model,
        tmp_path / "run",
        queries=QUERIES,
        first_stage=Everything(),
        vectors=index,
        options=DistillOptions(held_out=0.1, rounds=4, ranker_rounds=4, hard=4, group=4),
        # a loss of the item encoder among them, and a rate: there is none
        joint=JointOptions([LossWeights(listwise=1, cosine=1, residual=1)], [2], (1e-3, 0, 0.1), save_every=1000),
        progress=False,
    )
    assert found["k=2"].kendall_tau > found["start k=2"].kendall_tau + 0.3
    fitted = MixLM.from_pretrained(tmp_path / "run" / "model")
    assert index.digest() == before and len(Reranker(fitted, index).rerank("dog", DOCIDS)) == 20


def test_gradients_reach_ranker_and_projector(model: MixLM, source: Source, tmp_path: Path) -> None:
    torch.nn.init.normal_(model.readout.score.weight)
    vectors = np.random.default_rng(0).standard_normal((len(source.texts), 2, 5))
    index = TokenIndex.from_vectors([*source.texts], vectors, model, tmp_path / "of-all", progress=False)
    given = Source("tiny", source.pools, source.texts, source.scores, vectors=index)
    batch = TrainingMix([given], 1, queries=3, candidates=3)[0]
    # pred and text read the documents' texts in full, beside the vectors
    JointObjective(model)(batch, LossWeights(listwise=1, pred=1, text=1), [2, 1])["loss"].backward()
    assert model.projector is not None and model.projector.weight.grad is not None
    assert model.projector.weight.grad.abs().sum() > 0
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.ranker.parameters())


def test_what_does_not_belong_together_is_refused_before_the_teacher_reads(
    fresh: Callable[..., MixLM], model: MixLM, captions: list[Document], index: TokenIndex, tmp_path: Path
) -> None:
    class Silent(OtherReadout):
        def score_batch(self, *given: object) -> list[NDArray[np.float64]]:
            raise AssertionError

    teacher = Silent(model, index)

    def fitted(start: MixLM, vectors: TokenIndex | None, folder: str = "run") -> None:
        stage, options = Everything(), DistillOptions(hard=0)
        distill(
            captions,
            teacher,
            teacher,  # type: ignore[arg-type]
            start,
            tmp_path / folder,
            queries=QUERIES,
            first_stage=stage,
            vectors=vectors,
            options=options,
            joint=JointOptions(budgets=[2]),
            progress=False,
        )

    with pytest.raises(InputError, match="are vectors: give the index of their vectors"):
        fitted(model, None)
    with pytest.raises(InputError, match="are texts: leave out the vectors"):
        fitted(fresh("bert", tokens=2), index)
    index.delete(["d7"])
    with pytest.raises(InputError, match=r"lacks the vectors of 1 documents \('d7' ...\)"):
        fitted(model, index)
    other = TokenIndex.from_vectors(DOCIDS, np.ones((20, 2, 5)), model, tmp_path / "other", progress=False)
    with pytest.raises(InputError, match="was begun with another index of vectors"):
        fitted(model, other)


def test_the_command(
    model: MixLM,
    captions: list[Document],
    index: TokenIndex,
    cross_encoder: Callable[..., Path],
    mixlm: Any,
    tmp_path: Path,
) -> None:
    model.save_pretrained(tmp_path / "start")
    rows = [{"_id": document.docid, "text": document.text} for document in captions]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.tsv").write_text("".join(f"{qid}\t{query}\n" for qid, query in QUERIES.items()))
    run = "".join(f"{qid} Q0 {docid} {n + 1} {20 - n} x\n" for qid in QUERIES for n, docid in enumerate(DOCIDS))
    (tmp_path / "run.trec").write_text(run)
    (tmp_path / "short.yaml").write_text("options: {held_out: 0.1}\njoint: {phases: [{listwise: 1}], budgets: [2]}\n")
    line = (
        f"distill {tmp_path}/captions.jsonl --teacher {cross_encoder()} --queries {tmp_path}/queries.tsv --run "
        f"{tmp_path}/run.trec --config {tmp_path}/short.yaml --quiet --output {tmp_path}/out --model {tmp_path}/start"
    )
    done = mixlm(line)
    assert done.code == 2 and "give the index of their vectors (--vectors INDEX)" in done.err
    done = mixlm(f"{line} --vectors {index.path}")
    assert done.code == 0, done.err
    assert f"serve --index corpus={index.path} --model {tmp_path}/out/model" in done.err
    assert "index build" not in done.err
    fitted = MixLM.from_pretrained(tmp_path / "out" / "model")
    assert len(Reranker(fitted, index).rerank("dog", DOCIDS)) == 20


def test_a_recipe_does_not_train_one(
    model: MixLM, recipe: Callable[..., Path], beir: Path, mixlm: Any, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "start")
    path = recipe(model={"start": str(tmp_path / "start")}, joint={"budgets": [2]})
    done = mixlm(f"train {path} --data {beir} --output {tmp_path}/run --quiet")
    assert done.code == 2 and "train it with mixlm-rerank distill --vectors" in done.err
