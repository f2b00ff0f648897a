"""Embedding tokens <-> fixed-size records of bytes.

A record holds one document: ``tokens * dim`` components, then (int8 only) one fp16 scale a vector. int8 keeps each
component within half a step of ``max|component| / 127`` of its vector, a quarter of the bytes of float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["PRECISIONS", "Quantiser"]

PRECISIONS = ("int8", "float16", "float32")


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

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision of a token index must be one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )

    @property
    def record_bytes(self) -> int:
        components = self.tokens * self.dim
        scales = 2 * self.tokens if self.precision == "int8" else 0
        return components * np.dtype(self.precision).itemsize + scales

    def pack(self, tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
        """float32 [n, tokens, dim] -> uint8 [n, record_bytes].

        Raises InputError for what ``precision`` cannot hold.
        """
        n = len(tokens)
        if self.precision != "int8":
            with np.errstate(over="ignore"):
                packed = np.ascontiguousarray(tokens, dtype=self.precision)
            self._refuse_infinite(packed)
            return packed.view(np.uint8).reshape(n, self.record_bytes)
        with np.errstate(over="ignore"):
            scales = (np.abs(tokens).max(axis=2) / 127).astype(np.float16)
        self._refuse_infinite(scales)
        divisor = np.where(scales > 0, scales, 1).astype(np.float32)
        codes = np.clip(np.rint(tokens / divisor[:, :, None]), -127, 127).astype(np.int8)
        code_bytes = codes.view(np.uint8).reshape(n, self.tokens * self.dim)
        return np.concatenate([code_bytes, scales.astype("<f2").view(np.uint8)], axis=1)

    def unpack(self, records: NDArray[np.uint8], tokens: int | None = None) -> NDArray[np.float32]:
        """uint8 [n, record_bytes] -> float32 [n, k, dim]: the last k = ``tokens`` (default: all) of each document.

        Raises InputError for a budget that the records do not hold.
        """
        n, k = len(records), self.tokens if tokens is None else tokens
        if not isinstance(k, Integral) or not 1 <= k <= self.tokens:
            raise InputError(f"a budget of {k} tokens is not possible: the index holds {self.tokens} a document")
        skip = self.tokens - k
        if self.precision != "int8":
            whole = np.ascontiguousarray(records).view(self.precision).reshape(n, self.tokens, self.dim)
            return whole[:, skip:].astype(np.float32)
        split = self.tokens * self.dim
        codes = records[:, skip * self.dim : split].view(np.int8).reshape(n, k, self.dim)
        scales = np.ascontiguousarray(records[:, split + 2 * skip :]).view("<f2")
        return codes * scales.astype(np.float32)[:, :, None]

    def _refuse_infinite(self, values: NDArray[np.floating]) -> None:
        if not np.isfinite(values).all():
            raise InputError(f"embedding tokens are not finite, or too large for {self.precision}: use float32")
