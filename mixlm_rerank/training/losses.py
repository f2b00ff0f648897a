"""Losses of stage III: the paper's pointwise losses, and losses over all candidates of a query.

Each is a mean over its inputs.

With p = sigmoid(score), the probability of yes, and KL between two-valued distributions (p, 1 - p)::

    sft      KL(P_label   || P)        label: soft grade in [0, 1]
    distill  KL(P_teacher || P)
    pred     KL(P_text    || P)        the ranker's own full-text pass
    hidden   1 - cos(h_mixed, h_text)  final hidden states at the score token

Over a query's candidates i, j, with teacher scores t and scores s, both divided by the temperature::

    listwise    KL(softmax(t) || softmax(s))
    margin_mse  mean of ((t_i - t_j) - (s_i - s_j))^2           MarginMSE (2010.02666), over all pairs
    ranknet     mean of log(1 + exp(s_j - s_i)) where t_i > t_j  RankNet; for rerankers: Rank-DistiLLM (2405.07920)
    lambdarank  as ranknet, each pair weighted by the change in nDCG if it were swapped, with gains sigmoid(t)
    adr_mse     mean of (rank of t - soft rank of s)^2 / log2(1 + rank of t)   ADR-MSE (2405.07920)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["OVER_CANDIDATES", "LossWeights", "hidden_alignment", "listwise", "pointwise", "weights_at"]


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
        mask: bool, same shape; False where a query has fewer candidates.
    """
    target = _log_softmax(teacher.detach(), mask, temperature)
    ours = _log_softmax(scores, mask, temperature)
    parts = torch.where(mask, target.exp() * (target - ours), 0.0)
    return parts.sum(dim=1).mean()


def hidden_alignment(mixed: Tensor, text: Tensor) -> Tensor:
    """Mean of ``1 - cos(h_mixed, h_text)``. [n, d], [n, d] -> scalar. No gradient to the full-text states."""
    return (1 - F.cosine_similarity(mixed.float(), text.detach().float(), dim=-1)).mean()


def margin_mse(teacher: Tensor, scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """MarginMSE over all pairs. Arguments as for :func:`listwise`."""
    apart = ((teacher.detach().float() - scores.float()) / temperature).masked_fill(~mask, 0.0)
    count = mask.sum(dim=1).clamp(min=1)
    mean = apart.sum(dim=1) / count
    variance = (apart - mean[:, None]).masked_fill(~mask, 0.0).square().sum(dim=1) / count
    return 2 * variance.mean()  # the mean squared difference over all pairs, including i = j


def ranknet(teacher: Tensor, scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """RankNet. Arguments as for :func:`listwise`."""
    ordered, losses = _pairs(teacher, scores, mask, temperature)
    return _mean(losses, ordered)


def lambdarank(teacher: Tensor, scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """LambdaRank. Arguments as for :func:`listwise`."""
    ordered, losses = _pairs(teacher, scores, mask, temperature)
    gains = (teacher.detach().float() / temperature).sigmoid().masked_fill(~mask, 0.0)
    discounts = 1 / torch.log2(1 + _ranks(scores.detach().float(), mask))
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    ideal = (gains.sort(dim=1, descending=True).values / torch.log2(1 + places)).sum(dim=1)
    changes = ((gains[:, :, None] - gains[:, None]) * (discounts[:, :, None] - discounts[:, None])).abs()
    return _mean(losses * changes / ideal.clamp(min=1e-9)[:, None, None], ordered)


def adr_mse(teacher: Tensor, scores: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """ADR-MSE. Arguments as for :func:`listwise`."""
    both = mask[:, :, None] & mask[:, None]
    scaled = scores.float() / temperature
    soft = 0.5 + (scaled[:, None] - scaled[:, :, None]).sigmoid().masked_fill(~both, 0.0).sum(dim=2)  # i = j adds 1/2
    ranks = _ranks(teacher.detach().float(), mask)
    return _mean((ranks - soft).square() / torch.log2(1 + ranks), mask)


OVER_CANDIDATES = {
    loss.__name__: loss for loss in (listwise, margin_mse, ranknet, lambdarank, adr_mse)
}  # keyed by the name of their weight


def _pairs(teacher: Tensor, scores: Tensor, mask: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Which pairs the teacher orders, bool [q, i, j], the better one first; and the logistic loss of each pair."""
    known = teacher.detach().masked_fill(~mask, 0.0)
    ordered = (known[:, :, None] > known[:, None]) & mask[:, :, None] & mask[:, None]
    scaled = scores.float() / temperature
    return ordered, F.softplus(scaled[:, None] - scaled[:, :, None])


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over each query's entries that are set, then over queries; a query without any counts 0."""
    kept = values.masked_fill(~mask, 0.0).flatten(1).sum(dim=1)
    return (kept / mask.flatten(1).sum(dim=1).clamp(min=1)).mean()


def _ranks(values: Tensor, mask: Tensor) -> Tensor:
    """Ranks from 1, best first, float32 [q, candidates]; ties share their mean rank; masked candidates get 1."""
    known = values.masked_fill(~mask, -torch.inf)
    better = (known[:, None] > known[:, :, None]).sum(dim=2)
    equal = ((known[:, None] == known[:, :, None]) & mask[:, None]).sum(dim=2)
    return (better + (equal + 1) / 2).masked_fill(~mask, 1.0)


def _log_softmax(values: Tensor, mask: Tensor, temperature: float) -> Tensor:
    # a large number, not infinity: infinite values have no gradient even where they are masked
    return (values.float() / temperature).masked_fill(~mask, -1e9).log_softmax(dim=1)


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss (docs/training.md lists them); a loss of weight 0 is not computed.

    Attributes:
        sft, distill: pointwise, against labels and teacher.
        pred, hidden: self-alignment with the ranker's own full-text pass.
        listwise, margin_mse, ranknet, lambdarank, adr_mse: against the teacher, over the candidates of each query.
        residual: ``listwise`` on only the residual, so that the item encoder does not leave the work to the ranker.
        cosine: ``listwise`` on the bi-encoder inside; keeps document and query embeddings good.
        text: ``listwise`` on the full-text pass; keeps full-text mode good.
    """

    sft: float = 0.0
    distill: float = 0.0
    pred: float = 0.0
    hidden: float = 0.0
    listwise: float = 0.0
    margin_mse: float = 0.0
    ranknet: float = 0.0
    lambdarank: float = 0.0
    adr_mse: float = 0.0
    residual: float = 0.0
    cosine: float = 0.0
    text: float = 0.0

    @property
    def teacher_is_asked(self) -> bool:
        """Whether any loss takes its target from the teacher."""
        over_candidates = (getattr(self, name) for name in OVER_CANDIDATES)
        return any((self.distill, *over_candidates, self.residual, self.cosine, self.text))

    @property
    def read_text(self) -> bool:
        """Whether the full-text pass is needed."""
        return any((self.pred, self.hidden, self.text))


def weights_at(phases: Sequence[LossWeights], progress: float) -> LossWeights:
    """The first of ``phases`` at the start of training (0), the last at its end (1), linear in between.

    >>> weights_at([LossWeights(pred=1), LossWeights(), LossWeights(listwise=1)], 0.75).listwise
    0.5
    """
    places, weights = range(len(phases)), zip(*map(astuple, phases), strict=True)
    return LossWeights(*(float(np.interp(progress * (len(phases) - 1), places, own)) for own in weights))
