"""The packed pass as CUDA graphs: for a few queries its kernels are so short that launching them takes longer."""

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

MOST_BYTES = 4 << 30  # of all recordings of a model, without working memory; the one not used for longest goes


class _Inputs(NamedTuple):
    """What a pass reads."""

    embeds: Tensor
    positions: Tensor
    token_types: Tensor
    score_rows: Tensor
    every: Tensor
    scores: Tensor

    def shape(self) -> tuple[int, int, int, int]:
        """Lengths that there is room for: of positions, score tokens and tiles. What costs is the positions."""
        rows, every, scores = (_power_of_two(len(part)) for part in (self.score_rows, self.every, self.scores))
        return _eighth(len(self.embeds)), rows, every, scores

    def longer(self) -> _Inputs:
        """Room for all inputs of the same shape."""
        positions, rows, every, scores = self.shape()
        lengths = (positions, positions, positions, rows, every, scores)
        return _Inputs(*(part.new_zeros(n, *part.shape[1:]) for part, n in zip(self, lengths, strict=True)))

    def fill(self, inputs: _Inputs) -> None:
        """Past their end is what was there, which nothing reads; but a tile that is not there must have no rows."""
        for place, part in zip(self, inputs, strict=True):
            place[: len(part)].copy_(part)
        self.every[len(inputs.every) :].zero_()
        self.scores[len(inputs.scores) :].zero_()


@dataclass(frozen=True)
class _Graph:
    """A recorded pass: what it reads and what it leaves, always at the same place."""

    inputs: _Inputs
    graph: torch.cuda.CUDAGraph
    states: Tensor

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (*self.inputs, self.states))


class GraphedPass:
    """Equal to the pass that it records. Inputs are filled up to one of few shapes.

    It is of the weights as they are: after a change of their dtype or device, make another.
    """

    def __init__(self, packed: BertPass | DecoderPass) -> None:
        self._packed, self.window, self.head = packed, packed.window, packed.head
        self._graphs: OrderedDict[tuple[int, ...], _Graph] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()  # of working memory: no two run at a time
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
        with torch.cuda.stream(side):  # what is compiled or chosen at a first call must not be recorded
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            states = run()
        return _Graph(own, graph, states)


def _eighth(length: int) -> int:
    """At least the length: a multiple of 16, and from 128 on one of eight numbers between two powers of two.

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
