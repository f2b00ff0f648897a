"""Pooling: the item encoder's hidden states -> embedding tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["clusters", "last_states", "rarity"]

ROUNDS = 3  # k-means iterations; ten are no better


def last_states(states: Tensor, count: int, lengths: Tensor | None = None) -> Tensor:
    """The paper's last-N sampling: states of the last ``count`` positions. [b, length, d] -> [b, count, d].

    A document with fewer positions repeats its first state in front. ``lengths``: positions of each document, int [b],
    if they are padded at the end; None: no padding.
    """
    places = (_lengths(states, lengths)[:, None] + torch.arange(-count, 0, device=states.device)).clamp(min=0)
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def rarity(vocabulary: int, special: Sequence[int]) -> Tensor:
    """Approximate inverse document frequency of each token id, from the id alone; 0 for ``special`` ids. float32 [v].

    Subword vocabularies are ordered by falling frequency, and by Zipf's law inverse document frequency grows like the
    logarithm of a token's rank. The fourth power is taken because the first ids are single characters.
    """
    weights = torch.log1p(torch.arange(vocabulary, dtype=torch.float32)) ** 4
    weights[[token for token in special if token < vocabulary]] = 0.0  # some tokenizers have more ids than their model
    return weights


def clusters(
    states: Tensor, ids: Tensor, weights: Tensor, count: int, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means of ``count`` clusters of similar states, the heaviest last, and the number of states in each cluster.

    Spherical k-means, seeded at the heaviest distinct tokens, so that names and technical terms get clusters of their
    own; equal segments would bury them. Gradients flow into the means, not into the choice of clusters.

    Args:
        states: [b, length, d].
        ids: token ids, [b, length].
        weights: one per state, float32 [b, length], none negative.
        lengths: positions of each text, int [b], if they are padded at the end; None: no padding.

    Returns:
        Means, [b, count, d], and sizes, float32 [b, count]. A text with few tokens has empty clusters, whose means
        stay at their seeds.
    """
    if lengths is None and states.device.type == "cpu" and len(states) > 1:
        # rounding depends on the batch size, and stored tokens must not: one text at a time
        texts = zip(states.split(1), ids.split(1), weights.split(1), strict=True)
        found = [clusters(*text, count) for text in texts]
        return torch.cat([means for means, _ in found]), torch.cat([sizes for _, sizes in found])
    with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
        own = _lengths(states, lengths)
        beyond = torch.arange(states.shape[1], device=states.device) >= own[:, None]
        directions = F.normalize(states.float(), dim=-1)
        share, sizes = _clusters(directions, weights, beyond, _repeated(ids) | beyond, own, count)
    return share.to(states.dtype) @ states, sizes


def _clusters(
    directions: Tensor, weights: Tensor, beyond: Tensor, others: Tensor, lengths: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Each state's share in each mean, and the number of states in each cluster.

    Unit vectors [b, length, d] -> float32 [b, count, length], whose rows sum to 1, and float32 [b, count].

    ``beyond``, bool [b, length]: padding. ``others``, of the same shape: states that seed a cluster only if there are
    too few of the rest.
    """
    length = directions.shape[1]
    weights = weights.masked_fill(beyond, 0.0)
    seeds = weights.masked_fill(others, -1.0).argsort(dim=1, descending=True, stable=True)
    # a text with few tokens uses some seeds twice
    seeds = seeds.gather(1, torch.arange(count, device=seeds.device) % lengths[:, None])
    share = (seeds[:, :, None] == torch.arange(length, device=seeds.device)).float()
    for _ in range(ROUNDS):
        nearest = (F.normalize(share @ directions, dim=-1) @ directions.transpose(1, 2)).argmax(dim=1)
        within = F.one_hot(nearest, count).transpose(1, 2) * ~beyond[:, None]
        members = within * weights[:, None]
        total = members.sum(dim=2, keepdim=True)
        share = torch.where(total > 0, members / total.clamp(min=1e-9), share)  # an empty cluster stays where it was
    order = total.squeeze(2).argsort(dim=1, stable=True)
    return share.gather(1, order[:, :, None].expand(-1, -1, length)), within.sum(dim=2).float().gather(1, order)


def _lengths(states: Tensor, lengths: Tensor | None) -> Tensor:
    """The given lengths or, without padding, the full length of every row. int [b]."""
    if lengths is not None:
        return lengths
    return torch.full(states.shape[:1], states.shape[1], dtype=torch.long, device=states.device)


def _repeated(ids: Tensor) -> Tensor:
    """Which tokens occur earlier in the same text. [b, length] -> bool [b, length]."""
    ordered, places = ids.sort(dim=1, stable=True)
    again = ordered[:, 1:] == ordered[:, :-1]
    return torch.zeros_like(ids, dtype=torch.bool).scatter(1, places[:, 1:], again)
