"""The shared-prefix scorer: a query's prefix is computed once for all its candidates, many queries a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import MixLM
from ..model.inference import scoring
from ..model.positions import positions_per_forward
from ..model.transfer import joined
from .residual import add_residual

__all__ = ["SharedPrefixScorer"]

# Positions a forward pass on a CPU: bounds the memory (about 100 MB for 22 M-parameter backbones); more is not faster.
POSITIONS_PER_FORWARD = 4096


class SharedPrefixScorer:
    """Equals :class:`ReferenceScorer` within 1e-4 log-odds in float32, in any order and any company of candidates.

    Whether it does is tested on random inputs for every supported architecture. Several threads may share one, on a GPU
    in one stream: the CPU then prepares one call while the GPU works on another.
    """

    def __init__(self, model: MixLM, *, positions: int | None = None) -> None:
        """``positions``: of a forward pass, about; a prefix that is longer has as many of its candidates beside it."""
        self._model = model
        self._positions = positions or positions_per_forward(model.device, POSITIONS_PER_FORWARD)

    def score(self, query: str, tokens: Tensor) -> Tensor:
        """Embedding tokens, float [n, k, d] -> log-odds, float32 [n]."""
        return self.score_batch([query], [tokens])[0]

    @scoring
    def score_batch(self, queries: Sequence[str], tokens: Sequence[Tensor]) -> list[Tensor]:
        """One float [n, k, d] a query (the same k for all) -> one float32 [n] a query."""
        model = self._model
        prefixes = model.ranker.prefixes(queries)
        found = [torch.empty(0, dtype=torch.float32, device=model.device)]
        for spans in self._forwards([len(prefix) for prefix in prefixes], tokens):
            states = model.ranker.forward_packed([prefixes[span.query] for span in spans], self._items(spans, tokens))
            found.append(model.readout(torch.cat(states)))  # a GPU is waited for at the end alone
        scores = torch.cat(found).split([len(candidates) for candidates in tokens])
        return add_residual(model, queries, tokens, scores)

    def _items(self, spans: Sequence[_Span], tokens: Sequence[Tensor]) -> list[Tensor]:
        """The ranker's inputs for a forward pass. float [n, k, d] a span."""
        parts = [tokens[span.query][span.start : span.stop] for span in spans]
        if self._model.device.type == "cpu":
            return [self._model.project(part) for part in parts]
        items = self._model.project(joined(parts, self._model.device))  # one transfer
        return list(items.split([len(part) for part in parts]))

    def _forwards(self, prefix_lengths: Sequence[int], tokens: Sequence[Tensor]) -> Iterator[list[_Span]]:
        """Cut all candidates into forward passes of so many positions, or of twice a prefix that is longer."""
        spans: list[_Span] = []
        room = self._positions
        for query, (prefix_length, candidates) in enumerate(zip(prefix_lengths, tokens, strict=True)):
            shared, own = self._model.ranker.positions(prefix_length, candidates.shape[1])
            start = 0
            while start < len(candidates):
                fits = (room - shared) // own
                least = min(len(candidates) - start, max(shared // own, 1))  # a prefix is not computed for less
                if fits < least and spans:
                    yield spans
                    spans, room = [], self._positions
                    continue
                stop = min(len(candidates), start + max(fits, least))
                spans.append(_Span(query, start, stop))
                room -= shared + (stop - start) * own
                start = stop
        if spans:
            yield spans


@dataclass(frozen=True, slots=True)
class _Span:
    """Some neighbouring candidates of one query."""

    query: int
    start: int
    stop: int
