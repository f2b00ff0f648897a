"""The packed pass as CUDA graphs: with a few queries, launching its short kernels takes longer than running them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from .fused_attention import FusedTiles
from .layout import PackedAttention
from .passes import BertPass, DecoderPass

__all__ = ["GraphedPass"]

MOST_BYTES = 4 << 30  # all recordings of a model, without working memory; the least recently used is dropped


class _Inputs(NamedTuple):
    """The inputs of a pass."""

    embeds: Tensor
    positions: Tensor
    token_types: Tensor
    score_rows: Tensor
    every: Tensor
    scores: Tensor

    def shape(self) -> tuple[int, int, int, int]:
        """Padded lengths of positions, score rows and both tables of tiles. Extra positions are what costs time."""
        rows, every, scores = (_power_of_two(len(part)) for part in (self.score_rows, self.every, self.scores))
        return _eighth(len(self.embeds)), rows, every, scores

    def longer(self) -> _Inputs:
        """Zeros, with room for all inputs of the same shape."""
        positions, rows, every, scores = self.shape()
        lengths = (positions, positions, positions, rows, every, scores)
        return _Inputs(*(part.new_zeros(n, *part.shape[1:]) for part, n in zip(self, lengths, strict=True)))

    def fill(self, inputs: _Inputs) -> None:
        """Copy the inputs in. Stale values past their end are never read; unused entries for tiles are zeroed."""
        for place, part in zip(self, inputs, strict=True):
            place[: len(part)].copy_(part)
        self.every[len(inputs.every) :].zero_()
        self.scores[len(inputs.scores) :].zero_()


@dataclass(frozen=True)
class _Graph:
    """A recorded pass, with its inputs and its output always in the same memory."""

    inputs: _Inputs
    graph: torch.cuda.CUDAGraph
    states: Tensor

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (*self.inputs, self.states))


class GraphedPass:
    """Replays recordings of a pass; the results are equal. Inputs are padded to one of a few shapes.

    A recording uses the weights as they are: after a change of their dtype or device, make a new GraphedPass.
    """

    def __init__(self, packed: BertPass | DecoderPass) -> None:
        self._packed, self.window, self.head = packed, packed.window, packed.head
        self._graphs: OrderedDict[tuple[int, ...], _Graph] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()  # shared working memory: no two graphs run at a time
        self._lock = Lock()

    def __call__(
        self, embeds: Tensor, positions: Tensor, token_types: Tensor, score_rows: Tensor, attention: PackedAttention
    ) -> Tensor:
        if not isinstance(attention, FusedTiles) or not torch.is_inference_mode_enabled():
            return self._packed(embeds, positions, token_types, score_rows, attention)
        inputs = _Inputs(embeds, positions, token_types, score_rows, attention.every, attention.scores)
        shape = (attention.item_length, *inputs.shape())
        with self._lock, torch.cuda.device_of(embeds):
            graph = self._graphs.pop(shape, None) or self._recorded(inputs, attention)
            self._graphs[shape] = graph
            while len(self._graphs) > 1 and sum(each.bytes for each in self._graphs.values()) > MOST_BYTES:
                self._graphs.popitem(last=False)
            graph.inputs.fill(inputs)
            graph.graph.replay()
            return graph.states[: len(score_rows)].clone()

    def _recorded(self, inputs: _Inputs, attention: FusedTiles) -> _Graph:
        own = inputs.longer()
        own.fill(inputs)
        tiles = FusedTiles(own.every, own.scores, attention.item_length, attention.causal)

        def run() -> Tensor:
            return self._packed(own.embeds, own.positions, own.token_types, own.score_rows, tiles)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compilation and kernel choice at the first call must not be recorded
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            states = run()
        return _Graph(own, graph, states)


def _eighth(length: int) -> int:
    """The length rounded up to a multiple of 16 and, from 128 on, to one of eight numbers per power of two.

    >>> [_eighth(length) for length in (1, 16, 17, 160, 1000, 1025)]
    [16, 16, 32, 160, 1024, 1152]
    """
    step = max(16, 1 << max(0, length.bit_length() - 4))
    return -(-length // step) * step


def _power_of_two(length: int) -> int:
    """
    >>> [_power_of_two(length) for length in (1, 2, 3, 64, 65)]
    [1, 2, 4, 64, 128]
    """
    return 1 << (length - 1).bit_length()
