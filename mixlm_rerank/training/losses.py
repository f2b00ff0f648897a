"""What stage III minimises: the paper's pointwise losses, and a listwise one. Each is a mean over what it is given.

With p = sigmoid(score), the probability of yes, and KL between two-valued distributions (p, 1 - p)::

    sft       KL(P_label   || P)        label: soft grade in [0, 1]
    distil    KL(P_teacher || P)
    pred      KL(P_text    || P)        the ranker's own full-text pass
    hidden    1 - cos(h_mixed, h_text)  final hidden states at the score token
    listwise  KL(softmax(teacher / t) || softmax(scores / t)) over a query's candidates
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["hidden_alignment", "listwise", "pointwise"]


def pointwise(targets: Tensor, scores: Tensor) -> Tensor:
    """Mean of ``KL(target || sigmoid(score))``. Probabilities [n] and log-odds [n] -> scalar; 0 for none.

    No gradient to targets.

    >>> round(float(pointwise(torch.tensor([0.5]), torch.tensor([0.0]))), 6)
    0.0
    """
    targets = targets.detach().float()
    if not len(targets):
        return scores.sum() * 0.0
    entropy = -(torch.xlogy(targets, targets) + torch.xlogy(1 - targets, 1 - targets)).mean()
    return F.binary_cross_entropy_with_logits(scores.float(), targets) - entropy


def listwise(teacher: Tensor, scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over queries of ``KL(softmax(teacher / t) || softmax(scores / t))``.

    Args:
        teacher, scores: float [queries, candidates].
        mask: bool, alike; False where a query has fewer candidates.
    """
    target = _log_softmax(teacher.detach(), mask, temperature)
    ours = _log_softmax(scores, mask, temperature)
    parts = torch.where(mask, target.exp() * (target - ours), 0.0)
    return parts.sum(dim=1).mean()


def hidden_alignment(mixed: Tensor, text: Tensor) -> Tensor:
    """Mean of ``1 - cos(h_mixed, h_text)``. [n, d], [n, d] -> scalar. No gradient to the full-text states."""
    return (1 - F.cosine_similarity(mixed.float(), text.detach().float(), dim=-1)).mean()


def _log_softmax(values: Tensor, mask: Tensor, temperature: float) -> Tensor:
    # a large number, not infinity: infinite values have no gradient even where they do not count
    return (values.float() / temperature).masked_fill(~mask, -1e9).log_softmax(dim=1)
