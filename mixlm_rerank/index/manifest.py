"""What a token index says of itself: by which encoder, in which shape, how far."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import IndexDamaged, IndexMismatch

if TYPE_CHECKING:
    from ..model import MixLM

__all__ = ["Manifest"]

FORMAT_VERSION = 2  # 2: checksums cover docid and content hash too; generations of segments


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    fingerprint: of the item encoder that made the tokens.
    model: its name or folder when the index was built, for messages.
    tokens, dim: shape of a document, [tokens, dim].
    precision: of the stored tokens: ``"int8"``, ``"float16"`` or ``"float32"``.
    corpus: where the documents came from, for messages.
    rows_per_segment: records in a full segment file.
    complete: False while the first build is under way or was interrupted.
    """

    fingerprint: str
    model: str
    tokens: int
    dim: int
    precision: str
    corpus: str
    rows_per_segment: int
    complete: bool = False
    format_version: int = FORMAT_VERSION

    def check_model(self, model: MixLM, where: Path | str) -> None:
        """Raises IndexMismatch unless ``model`` has the item encoder that built this index."""
        if not model.made(self.fingerprint):
            raise IndexMismatch(
                f"{where} was built by item encoder {self.fingerprint} ({self.model}), but this model's item "
                f"encoder is {model.fingerprint} ({model.name}). Rebuild it: "
                f"mixlm-rerank index build {self.corpus} NEW_INDEX --model {model.name}"
            )

    def same_tokens(self, other: Manifest) -> bool:
        """Whether documents of the one are like documents of the other: same encoder, shape and precision."""

        def tokens(manifest: Manifest) -> tuple[str, int, int, str]:
            return manifest.fingerprint, manifest.tokens, manifest.dim, manifest.precision

        return tokens(self) == tokens(other)

    def dumps(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def loads(cls, data: bytes | str, where: Path | str) -> Manifest:
        """Raises IndexDamaged if ``data`` is no manifest of a format that this release reads."""
        try:
            values = json.loads(data)
            version = values["format_version"]
        except (ValueError, TypeError, KeyError):
            raise IndexDamaged(f"{where} has an unreadable manifest") from None
        if version != FORMAT_VERSION:
            raise IndexDamaged(
                f"{where} has index format {version}; this release reads format {FORMAT_VERSION}. Rebuild the index, "
                "or use the release that built it"
            )
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise IndexDamaged(f"{where} has a manifest with the wrong keys: {sorted(set(values) ^ names)}")
        manifest = cls(**values)
        shape = (manifest.tokens, manifest.dim, manifest.rows_per_segment)
        if not all(type(number) is int and number > 0 for number in shape):
            raise IndexDamaged(f"{where} has a manifest with impossible numbers: {shape}")
        return manifest
