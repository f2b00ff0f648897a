"""Every loss against a value computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mixlm_rerank.training.losses import hidden_alignment, listwise, pointwise


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


def test_what_is_masked_has_no_gradient_and_no_effect() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    loss = listwise(torch.tensor([[1.0, 0.0, math.nan]]), scores, mask)
    loss.backward()
    assert scores.grad is not None and scores.grad.isfinite().all()
    assert scores.grad[0, 2] == 0 and scores.grad[0, 0] != 0
    other = listwise(torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[1.0, 2.0, -50.0]]), mask)
    assert other.item() == pytest.approx(loss.item())


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
