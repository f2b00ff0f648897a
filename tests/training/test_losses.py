"""Every loss against a value computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mixlm_rerank.training.losses import (
    OVER_CANDIDATES,
    adr_mse,
    hidden_alignment,
    lambdarank,
    listwise,
    margin_mse,
    pointwise,
    ranknet,
)


def kl(p: float, q: float) -> float:
    """Between two two-valued distributions."""
    parts = [(a, b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0]
    return sum(a * math.log(a / b) for a, b in parts)


def sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score))


@pytest.mark.parametrize(("target", "score"), [(0.0, -1.0), (1.0, 2.0), (0.5, 3.0), (0.2, 0.2)])
def test_pointwise_is_the_divergence_of_two_valued_distributions(target: float, score: float) -> None:
    found = pointwise(torch.tensor([target]), torch.tensor([score]))
    assert float(found) == pytest.approx(kl(target, sigmoid(score)), abs=1e-6)
    mean = pointwise(torch.tensor([target, 0.5]), torch.tensor([score, 0.0]))
    assert float(mean) == pytest.approx(float(found) / 2, abs=1e-6)


def test_listwise_by_hand() -> None:
    """Two candidates, temperature 2: softmax((2, 0) / 2) against softmax((0, 0)), and a query that has but one."""
    mask = torch.tensor([[True, True], [True, False]])
    teacher = torch.tensor([[2.0, 0.0], [5.0, math.nan]])
    found = listwise(teacher, torch.zeros(2, 2), mask, temperature=2.0)
    p = math.e / (math.e + 1)
    expected = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert float(found) == pytest.approx(expected / 2, abs=1e-6)


def test_listwise_is_zero_for_the_teachers_own_scores_up_to_a_constant() -> None:
    teacher = torch.tensor([[3.0, 1.0, -2.0]])
    assert float(listwise(teacher, teacher + 7, torch.ones(1, 3, dtype=torch.bool))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", OVER_CANDIDATES)
def test_what_is_masked_has_no_gradient_and_no_effect(name: str) -> None:
    over_candidates = OVER_CANDIDATES[name]
    scores = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    loss = over_candidates(torch.tensor([[1.0, 0.0, math.nan]]), scores, mask)
    loss.backward()
    assert scores.grad is not None and scores.grad.isfinite().all()
    assert scores.grad[0, 2] == 0 and scores.grad[0, 0] != 0
    other = over_candidates(torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[1.0, 2.0, -50.0]]), mask)
    assert other.item() == pytest.approx(loss.item())


@pytest.mark.parametrize("name", OVER_CANDIDATES)
def test_it_is_less_for_the_teachers_order_than_for_the_reverse(name: str) -> None:
    teacher, mask = torch.tensor([[2.0, 0.5, -1.0, -3.0]]), torch.ones(1, 4, dtype=torch.bool)
    assert OVER_CANDIDATES[name](teacher, teacher, mask) < 0.7 * OVER_CANDIDATES[name](teacher, -teacher, mask)


def test_margin_mse_by_hand() -> None:
    """Over all pairs i, j of three candidates; the second query has one, and so no pair that differs."""
    teacher, scores = torch.tensor([[3.0, 1.0, 0.0], [5.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 2.0], [9.0, 7.0, 7.0]])
    apart = (teacher - scores)[0].tolist()  # 2, 0, -2
    expected = sum((a - b) ** 2 for a in apart for b in apart) / 9
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert float(margin_mse(teacher, scores, mask)) == pytest.approx(expected / 2, abs=1e-6)


def test_lambdarank_by_hand() -> None:
    """Two candidates in the wrong order: their exchange changes nDCG by |g1 - g2| (1 - 1 / log2(3)) / ideal."""
    teacher, scores = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    better, worse, second = sigmoid(2), 0.5, 1 / math.log2(3)
    change = (better - worse) * (1 - second) / (better + worse * second)
    expected = change * math.log(1 + math.exp(1))
    assert float(lambdarank(teacher, scores, torch.ones(1, 2, dtype=torch.bool))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [2, 7])
def test_ranknet_and_adr_mse_are_those_of_sentence_transformers(count: int) -> None:
    """Its losses ask a model for scores: this one knows them. Its RankNet takes logarithms to the base of 2."""
    losses = pytest.importorskip("sentence_transformers.cross_encoder.losses")

    class Known(nn.Module):
        num_labels, device = 1, torch.device("cpu")

        def preprocess(self, pairs: list[tuple[str, str]], **options: object) -> dict[str, list[int]]:
            return {"places": [int(document) for _, document in pairs]}

        def forward(self, tokens: dict[str, list[int]]) -> dict[str, torch.Tensor]:
            return {"scores": scores[0, tokens["places"]]}

    draw = torch.Generator().manual_seed(count)
    teacher, scores = torch.randn(1, count, generator=draw).round(decimals=1), torch.randn(1, count, generator=draw)
    teacher[0, -1] = teacher[0, 0] if count > 2 else teacher[0, -1]  # a tie
    mask, inputs = torch.ones(1, count, dtype=torch.bool), [["query"], [[str(place) for place in range(count)]]]
    theirs = losses.ADRMSELoss(Known())(inputs, [teacher[0]])
    assert float(adr_mse(teacher, scores, mask)) == pytest.approx(float(theirs), abs=1e-5)
    theirs = losses.RankNetLoss(Known())(inputs, [teacher[0] - teacher.min()])
    assert float(ranknet(teacher, scores, mask)) / math.log(2) == pytest.approx(float(theirs), abs=1e-4)


def test_hidden_alignment_by_hand() -> None:
    mixed, text = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 3.0], [1.0, 1.0]])
    expected = ((1 - 0) + (1 - math.sqrt(0.5))) / 2
    assert float(hidden_alignment(mixed, text)) == pytest.approx(expected, abs=1e-6)


def test_targets_get_no_gradient() -> None:
    """Teacher and full-text pass are targets: the model must not move towards itself."""
    target, score = nn.Parameter(torch.tensor([[0.3, 0.6]])), nn.Parameter(torch.tensor([[0.1, 0.4]]))
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss = pointwise(target[0], score[0]) + listwise(target, score, mask) + hidden_alignment(score, target)
    loss.backward()
    assert target.grad is None and score.grad is not None


def test_of_no_pairs_the_loss_is_zero_and_has_a_gradient() -> None:
    score = torch.zeros(0, requires_grad=True)
    loss = pointwise(torch.zeros(0), score)
    loss.backward()
    assert loss.item() == 0
