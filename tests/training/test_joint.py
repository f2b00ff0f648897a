"""The joint objective: equal to the scorers, and its gradients reach what is to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer, ReferenceScorer
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights, listwise, pointwise, weights_at
from mixlm_rerank.training.mix import Batch, Source, TrainingMix

ARCHITECTURES = ("bert", "modernbert", "qwen3")


@pytest.fixture
def batch(source: Source) -> Batch:
    return TrainingMix([source], 1, queries=3, candidates=3)[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("memory_tokens", [0, 4])
def test_documents_of_any_length_together_get_the_tokens_that_they_get_alone(
    fresh: Callable[..., MixLM], architecture: str, memory_tokens: int
) -> None:
    encoder = fresh(architecture, memory_tokens=memory_tokens).item_encoder
    texts = ["a dog", "the moon is a rock that goes round the earth", "bread", "x " * 100]
    together = encoder.forward_padded(encoder.document_ids(texts))
    torch.testing.assert_close(together, torch.from_numpy(encoder.encode(texts)), atol=2e-5, rtol=1e-4)


def _of_the_ranker_alone(model: MixLM, query: str, tokens: torch.Tensor) -> torch.Tensor:
    (prefix,) = model.ranker.prefixes([query])
    with torch.no_grad():
        return model.readout(model.ranker([prefix] * len(tokens), list(model.project(tokens))))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("residual", ["none", "cosine", "late"])
def test_losses_are_those_of_the_scorers(
    fresh: Callable[..., MixLM], batch: Batch, architecture: str, residual: str
) -> None:
    """What is trained is what ranks: from tokens, as a bi-encoder, and from text."""
    model = fresh(architecture, residual=residual)
    torch.nn.init.normal_(model.readout.score.weight)
    with torch.no_grad():
        found = JointObjective(model, texts_per_query=2)(
            batch, LossWeights(listwise=1, distill=1, residual=1, cosine=1, text=1), [2]
        )
    tokens = torch.from_numpy(model.encode(batch.documents))
    scores = torch.stack([ReferenceScorer(model).score(query, tokens[:, -2:]) for query in batch.queries])
    assert float(found["listwise"]) == pytest.approx(float(listwise(batch.teacher, scores, batch.mask)), abs=1e-3)
    flat = pointwise(batch.teacher[batch.mask].sigmoid(), scores[batch.mask])
    assert float(found["distill"]) == pytest.approx(float(flat), abs=1e-3)
    if residual != "none":
        alone = scores - torch.stack([_of_the_ranker_alone(model, query, tokens[:, -2:]) for query in batch.queries])
        expected = listwise(batch.teacher, alone, batch.mask)
        assert float(found["residual"]) == pytest.approx(float(expected), abs=1e-3)
    cosines = torch.stack([BiEncoderScorer(model).score(query, tokens) for query in batch.queries])
    expected = listwise(batch.teacher, 20 * cosines, batch.mask)
    assert float(found["cosine"]) == pytest.approx(float(expected), abs=1e-3)
    read = torch.zeros_like(batch.mask)
    text = torch.zeros_like(batch.teacher)
    for row, query in enumerate(batch.queries):
        columns = batch.own[row][:2]
        read[row, columns] = True
        text[row, columns] = FullTextScorer(model).score(query, [batch.documents[c] for c in columns], tokens[columns])
    assert float(found["text"]) == pytest.approx(float(listwise(batch.teacher, text, read)), abs=1e-3)


def test_losses_of_several_budgets_are_their_mean(fresh: Callable[..., MixLM], batch: Batch) -> None:
    model = fresh(residual="late")
    torch.nn.init.normal_(model.readout.score.weight)
    weights = LossWeights(listwise=1, pred=1)
    with torch.no_grad():
        alone = [JointObjective(model)(batch, weights, [k]) for k in (4, 1)]
        together = JointObjective(model)(batch, weights, [4, 1])
    for name in ("listwise", "pred", "loss"):
        assert float(together[name]) == pytest.approx(sum(float(one[name]) for one in alone) / 2, rel=1e-4)
    assert float(alone[0]["listwise"]) != pytest.approx(float(alone[1]["listwise"]), rel=1e-3)


def test_pairs_of_which_nothing_is_known_are_not_scored(fresh: Callable[..., MixLM], batch: Batch) -> None:
    model = fresh()
    teacher = batch.teacher.clone()
    teacher[0, 1:] = torch.nan
    labels = torch.full_like(batch.labels, torch.nan)
    some = Batch(batch.queries, batch.documents, batch.own, labels, teacher)
    assert int(some.mask.sum()) == int(batch.mask[1:].sum()) + 1
    loss = JointObjective(model)(some, LossWeights(listwise=1, distill=1), [4])["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", [field.name for field in fields(LossWeights)])
def test_gradients_of_every_loss_reach_what_it_trains(fresh: Callable[..., MixLM], batch: Batch, name: str) -> None:
    model = fresh()
    torch.nn.init.normal_(model.readout.score.weight)
    JointObjective(model)(batch, LossWeights(**{name: 1.0}), [4, 1])["loss"].backward()
    encoder = any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.item_encoder.parameters())
    ranker = any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.ranker.parameters())
    assert encoder == (name != "text")  # the residual of the full-text pass is detached
    assert ranker == (name not in ("residual", "cosine"))


def test_under_a_frozen_item_encoder_documents_are_encoded_once(fresh: Callable[..., MixLM], batch: Batch) -> None:
    model = fresh()
    torch.nn.init.normal_(model.readout.score.weight)
    weights = LossWeights(listwise=1.0)
    expected = JointObjective(model)(batch, weights, [2])["loss"].item()
    model.item_encoder.requires_grad_(False)
    objective = JointObjective(model)
    assert objective(batch, weights, [2])["loss"].item() == pytest.approx(expected, abs=5e-3)  # kept in float16
    calls: list[int] = []
    model.item_encoder.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    loss = objective(batch, weights, [2])["loss"]
    assert len(calls) == 1  # the queries
    loss.backward()
    assert all(weight.grad is None for weight in model.item_encoder.parameters())
    assert any(weight.grad is not None and weight.grad.any() for weight in model.ranker.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert objective(batch, weights, [2])["loss"].item() == pytest.approx(expected, abs=0.1)


def test_weights_of_losses_are_mixed_along_a_curriculum() -> None:
    start, end = LossWeights(pred=1.0, listwise=0.2), LossWeights(listwise=1.0)
    assert start.read_text and not end.read_text
    phases = [start, end, LossWeights(cosine=1.0)]
    assert [weights_at(phases, progress) for progress in (0, 0.125, 0.5, 1)] == [
        start,
        LossWeights(pred=0.75, listwise=0.4),
        *phases[1:],
    ]
    assert weights_at([end], 0.7) == end
