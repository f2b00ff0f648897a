"""The parts of a MixLM and what they compute together: item encoder, projector, ranker, readout (arXiv 2512.07846)."""

from __future__ import annotations

import math
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
from .known_answer import QUERY, TEXTS
from .readout import Readout
from .running import inference, moved

__all__ = ["N", "Network"]

N = TypeVar("N", bound="Network")  # the class to make: a MixLM


class Network(nn.Module):
    """The parts of :class:`.mixlm.MixLM`, and what they compute, without creating, loading and saving."""

    def __init__(self, config: MixLMConfig, item_encoder: ItemEncoder, ranker: FastRanker, projector: nn.Linear | None):
        super().__init__()
        self.config = config
        self.item_encoder = item_encoder
        self.ranker = ranker
        self.projector = projector
        self.readout = Readout(ranker.hidden_size, config.residual, config.head)
        self.name = "unsaved"
        self._fingerprints: dict[bool, tuple[object, str]] = {}  # each with the weights that it was computed from

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
        """Cached: hashing takes a second. In-place changes raise a weight's version; new weights have new addresses."""
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
        """``half()``, ``to(dtype)`` and the like, also called on a parent module, change only ranker and projector.

        Item encoder and readout stay float32, and so do buffers: rounded rotary frequencies give other positions.
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

    def with_residual(self, queries: Sequence[str], tokens: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Tensor]:
        """The scores plus the residual (:meth:`Readout.residual`) of every candidate of every query, on the CPU.

        ``tokens``: float [n, k, d] per query. ``scores``: float32 [n] per query, on the model's device. Synchronises
        with a GPU once.
        """
        if not scores:
            return []
        flat = torch.cat(list(scores))
        if self.config.residual != "none":
            found = []
            for states, candidates in zip(self.item_encoder.query_states(queries), tokens, strict=True):
                query = self.item_encoder.embedding_of(states)[None]
                found.append(self.readout.residual(query, [states], moved(candidates, states.device))[0])
            flat = flat + torch.cat(found)
        return list(flat.cpu().split([len(own) for own in scores]))

    def known_answers(self) -> list[float]:
        """Log-odds of the texts of :mod:`.known_answer`, at the largest token budget, each text alone."""
        with inference(self):
            (prefix,) = self.ranker.prefixes([QUERY])
            if self.config.vectors:  # as many artificial documents
                shape = (len(TEXTS), 1, self.config.tokens, self.config.vectors)
                places = torch.arange(math.prod(shape), dtype=torch.float32, device=self.device)
                documents = list(places.sin().view(shape))
            else:
                documents = [torch.from_numpy(self.encode([text])).to(self.device) for text in TEXTS]
            scores = [self.readout(self.ranker([prefix], list(self.project(tokens)))) for tokens in documents]
            return torch.cat(self.with_residual([QUERY] * len(TEXTS), documents, scores)).tolist()
