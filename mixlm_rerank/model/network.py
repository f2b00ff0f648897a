"""The parts of a MixLM and what they compute together: item encoder, projector, ranker, readout (arXiv 2512.07846)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..progress import Progress
from .config import MixLMConfig
from .fast.ranker import FastRanker
from .fingerprint import fingerprint
from .item_encoder import ItemEncoder
from .readout import Readout

__all__ = ["N", "Network"]

N = TypeVar("N", bound="Network")  # what is made: a MixLM


class Network(nn.Module):
    """What :class:`.mixlm.MixLM` is made of, without the ways to make, load and save one."""

    def __init__(self, config: MixLMConfig, item_encoder: ItemEncoder, ranker: FastRanker, projector: nn.Linear | None):
        super().__init__()
        self.config = config
        self.item_encoder = item_encoder
        self.ranker = ranker
        self.projector = projector
        self.readout = Readout(ranker.hidden_size, config.residual, config.head)
        self.name = "unsaved"
        self._fingerprints: dict[bool, tuple[object, str]] = {}  # each with the weights that it is of

    @property
    def device(self) -> torch.device:
        return self.ranker.device

    @property
    def readers(self) -> dict[str, ItemEncoder | FastRanker]:
        """The parts that read text, with a backbone and a tokenizer each, by name."""
        every: dict[str, ItemEncoder | FastRanker] = {"item_encoder": self.item_encoder, "ranker": self.ranker}
        return {"ranker": self.ranker} if self.config.vectors else every

    @property
    def fingerprint(self) -> str:
        """Ties a token index to this item encoder: hash of its weights, tokenizer, template and budget."""
        return self._fingerprint(former=False)

    def accepts(self, fingerprint: str) -> bool:
        """Whether an index of that fingerprint holds tokens of this item encoder; release 0.1 computed others."""
        return fingerprint == self.fingerprint or fingerprint == self._fingerprint(former=True)

    def _fingerprint(self, *, former: bool) -> str:
        """Hashing takes a second; in-place changes of a weight raise its version, others give it another address."""
        weights = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for weight in self.item_encoder.state_dict().values()
        ]
        held, value = self._fingerprints.get(former, (None, ""))
        if held != weights:
            value = fingerprint(self.item_encoder, self.config, ranker=self.ranker, former=former)
            self._fingerprints[former] = weights, value
        return value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """``half()``, ``to(dtype)`` and the like, of what holds this too, change ranker and projector.

        Item encoder and readout stay float32, and so do buffers: rotary frequencies, rounded, are other positions.
        """
        parts = [self.ranker] if self.projector is None else [self.ranker, self.projector]
        changed = {id(held) for part in parts for weight in part.parameters() for held in (weight, weight.grad)}

        def applied(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if id(tensor) in changed or found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(applied, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def encode(self, texts: Sequence[str], *, bar: Progress | None = None) -> NDArray[np.float32]:
        """Embedding tokens of documents: float32 [n, tokens, d]. See :meth:`ItemEncoder.encode`."""
        return self.item_encoder.encode(texts, bar=bar)

    def project(self, tokens: Tensor) -> Tensor:
        """Embedding tokens as the ranker's input. [..., d_encoder] -> [..., d_ranker], in the ranker's dtype."""
        tokens = tokens.to(self.device, self.ranker.dtype)
        return tokens if self.projector is None else self.projector(tokens)
