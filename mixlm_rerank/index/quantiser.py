"""Embedding tokens <-> fixed-size records of bytes.

A record holds one document: ``tokens * dim`` components, then (int8 only) the scales of all blocks of 64 components,
then, if the ranker reads titles, ``title_tokens`` ids of its tokenizer (int32; -1 after a title's end).
int8 keeps each component within half a step of its block's ``max|component| / 127``, a quarter of the bytes of float32.
There are blocks because states of large models have a few components that are hundreds of times larger than the others:
with one scale per vector, the others were off by a third in the middle layer of Gemma 3 270M, and 65% of them became 0
(docs/token-index.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["PRECISIONS", "Quantiser"]

PRECISIONS = ("int8", "float16", "float32")
BLOCK = 64


@dataclass(frozen=True)
class Quantiser:
    """Packs float32 [n, tokens, dim] into uint8 [n, record_bytes] and back.

    >>> quantiser = Quantiser("int8", tokens=2, dim=4)
    >>> quantiser.record_bytes
    12
    >>> records = quantiser.pack(np.array([[[1.0, 0.5, 0, -1.0], [0, 0, 0, 127.0]]], dtype=np.float32))
    >>> quantiser.unpack(records).round(1).tolist()
    [[[1.0, 0.5, 0.0, -1.0], [0.0, 0.0, 0.0, 127.0]]]
    """

    precision: str
    tokens: int
    dim: int
    whole_vectors: bool = False  # int8 with one float16 scale per vector, as in indexes of format 2
    title_tokens: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision of a token index must be one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )

    @property
    def record_bytes(self) -> int:
        return self._vector_bytes + 4 * self.title_tokens

    @property
    def _vector_bytes(self) -> int:
        components = self.tokens * self.dim
        scales = 2 * self.tokens * self._blocks if self.precision == "int8" else 0
        return components * np.dtype(self.precision).itemsize + scales

    @property
    def _block(self) -> int:
        """Components that share a scale."""
        return self.dim if self.whole_vectors else BLOCK

    @property
    def _blocks(self) -> int:
        """Blocks per vector; the last may be shorter."""
        return -(-self.dim // self._block)

    def pack(self, tokens: NDArray[np.float32], titles: NDArray[np.int32] | None = None) -> NDArray[np.uint8]:
        """float32 [n, tokens, dim], and int32 [n, title_tokens] (default: no titles) -> uint8 [n, record_bytes].

        Raises InputError for values that ``precision`` cannot hold.
        """
        vectors, shape = self._packed(tokens), (len(tokens), self.title_tokens)
        ids = np.full(shape, -1, "<i4") if titles is None else np.ascontiguousarray(titles, "<i4").reshape(shape)
        return np.concatenate([vectors, ids.view(np.uint8)], axis=1) if self.title_tokens else vectors

    def titles(self, records: NDArray[np.uint8]) -> NDArray[np.int32] | None:
        """uint8 [n, record_bytes] -> int32 [n, title_tokens]; None if records hold no titles."""
        if not self.title_tokens:
            return None
        return np.ascontiguousarray(records[:, self._vector_bytes :]).view("<i4").astype(np.int32)

    def _packed(self, tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
        """float32 [n, tokens, dim] -> uint8 [n, _vector_bytes]."""
        n = len(tokens)
        if self.precision != "int8":
            with np.errstate(over="ignore"):
                packed = np.ascontiguousarray(tokens, dtype=self.precision)
            self._refuse_infinite(packed)
            return packed.view(np.uint8).reshape(n, self._vector_bytes)
        largest = np.maximum.reduceat(np.abs(tokens), range(0, self.dim, self._block), axis=2)
        stored = self._stored((largest / 127).astype(np.float32))
        scales = self._scales(stored)
        self._refuse_infinite(scales)
        codes = np.clip(np.rint(tokens / self._of_components(np.where(scales > 0, scales, 1))), -127, 127)
        code_bytes = codes.astype(np.int8).view(np.uint8).reshape(n, self.tokens * self.dim)
        return np.concatenate([code_bytes, stored.view(np.uint8).reshape(n, 2 * self.tokens * self._blocks)], axis=1)

    def unpack(self, records: NDArray[np.uint8], tokens: int | None = None) -> NDArray[np.float32]:
        """uint8 [n, record_bytes] -> float32 [n, k, dim]: the last k = ``tokens`` (default: all) of each document.

        Raises InputError for a budget that the records do not hold.
        """
        n, k = len(records), self.tokens if tokens is None else tokens
        if not isinstance(k, Integral) or not 1 <= k <= self.tokens:
            raise InputError(f"a budget of {k} tokens is not possible: the index holds {self.tokens} a document")
        skip, records = self.tokens - k, records[:, : self._vector_bytes]
        if self.precision != "int8":
            whole = np.ascontiguousarray(records).view(self.precision).reshape(n, self.tokens, self.dim)
            return whole[:, skip:].astype(np.float32)
        split = self.tokens * self.dim
        codes = records[:, skip * self.dim : split].view(np.int8).reshape(n, k, self.dim)
        stored = np.ascontiguousarray(records[:, split + 2 * skip * self._blocks :]).view("<u2")
        return codes * self._of_components(self._scales(stored.reshape(n, k, self._blocks)))

    def _stored(self, scales: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Scales as float16 or, so that none underflows or overflows, as the upper half of a float32, rounded up."""
        if self.whole_vectors:
            with np.errstate(over="ignore"):
                return scales.astype("<f2").view("<u2")
        return ((scales.view(np.uint32) + 0xFFFF) >> 16).astype("<u2")

    def _scales(self, stored: NDArray[np.uint16]) -> NDArray[np.float32]:
        if self.whole_vectors:
            return stored.view("<f2").astype(np.float32)
        return (stored.astype(np.uint32) << 16).view(np.float32)

    def _of_components(self, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scale of each component. [n, k, blocks] -> an array that broadcasts to [n, k, dim]."""
        return scales if self.whole_vectors else np.repeat(scales, self._block, axis=2)[:, :, : self.dim]

    def _refuse_infinite(self, values: NDArray[np.floating]) -> None:
        if not np.isfinite(values).all():
            raise InputError(f"embedding tokens are not finite, or too large for {self.precision}: use float32")
