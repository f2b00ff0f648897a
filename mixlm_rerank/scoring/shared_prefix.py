"""The shared-prefix scorer: computes a query's prefix once for all its candidates, many queries per forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..model import MixLM
from ..model.running import inference, joined, moved, positions_per_forward
from .plain import Scorer, check_titles

__all__ = ["SharedPrefixScorer"]

Span = tuple[int, slice]  # number of a query, and a range of its candidates


class SharedPrefixScorer(Scorer):
    """Equals :class:`ReferenceScorer` within 1e-4 log-odds in float32, whatever the order and batch of candidates.

    Tests check this on random inputs for every supported architecture. Several threads may share one scorer, on a GPU
    in one stream: the CPU then prepares one call while the GPU works on another.
    """

    def __init__(self, model: MixLM, *, positions: int | None = None) -> None:
        """``positions``: per forward pass, about; a long prefix still gets as many positions of candidates."""
        self._model = model
        self._positions = positions or positions_per_forward(model.device)

    def score_batch(
        self, queries: Sequence[str], tokens: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Candidates are sorted by title length meanwhile: the ranker processes titles of one length together."""
        model, read, orders = self._model, tokens, None
        check_titles(model, tokens, titles)
        with inference(model):
            if titles is not None:
                orders = [(own >= 0).sum(dim=1).argsort() for own in titles]
                read, titles = ([own[at] for own, at in zip(each, orders, strict=True)] for each in (tokens, titles))
            title = model.config.title_tokens if titles is not None else 0
            prefixes = model.ranker.prefixes(queries)
            found = [torch.empty(0, dtype=torch.float32, device=model.device)]
            for spans in self._forwards([len(prefix) for prefix in prefixes], read, title):
                own = [prefixes[query] for query, _ in spans]
                states = model.ranker.forward_packed(own, self._items(spans, read), titles and _parts(spans, titles))
                found.append(model.readout(torch.cat(states)))  # no synchronisation with a GPU until the end
            scores: Sequence[Tensor] = torch.cat(found).split([len(candidates) for candidates in tokens])
            if orders is not None:
                scores = [own[moved(at.argsort(), own.device)] for own, at in zip(scores, orders, strict=True)]
            return model.with_residual(queries, tokens, scores)

    def _items(self, spans: Sequence[Span], tokens: Sequence[Tensor]) -> list[Tensor]:
        """The ranker's inputs for a forward pass: float [n, k, d] per span."""
        parts = _parts(spans, tokens)
        if self._model.device.type == "cpu":
            return [self._model.project(part) for part in parts]
        items = self._model.project(joined(parts, self._model.device))  # one transfer
        return list(items.split([len(part) for part in parts]))

    def _forwards(self, prefix_lengths: Sequence[int], tokens: Sequence[Tensor], title: int) -> Iterator[list[Span]]:
        """Split all candidates into forward passes of about ``positions``, or twice the prefix length if that is more.

        ``title``: the most positions that a candidate's title takes.
        """
        spans: list[Span] = []
        room = self._positions
        for query, (prefix_length, candidates) in enumerate(zip(prefix_lengths, tokens, strict=True)):
            shared, own = self._model.ranker.positions(prefix_length, title + candidates.shape[1])
            start = 0
            while start < len(candidates):
                fits = (room - shared) // own
                least = min(len(candidates) - start, max(shared // own, 1))  # fewer are not worth computing a prefix
                if fits < least and spans:
                    yield spans
                    spans, room = [], self._positions
                    continue
                stop = min(len(candidates), start + max(fits, least))
                spans.append((query, slice(start, stop)))
                room -= shared + (stop - start) * own
                start = stop
        if spans:
            yield spans


def _parts(spans: Sequence[Span], of_queries: Sequence[Tensor]) -> list[Tensor]:
    """The slice of each span from its query's tensor, [n, ...]."""
    return [of_queries[query][candidates] for query, candidates in spans]
