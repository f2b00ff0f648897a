"""How models are loaded, the peers' as ours: a comparison on one device, in one dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Loading"]


@dataclass(frozen=True)
class Loading:
    """Attributes:
    device: ``"cpu"``, ``"cuda"`` ...; None: a GPU if there is one.
    dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; None: bfloat16 on a GPU, else float32.
    offline: never ask the hub.
    """

    device: str | None = None
    dtype: str | None = None
    offline: bool = False

    def of_sentence_transformers(self) -> dict[str, Any]:
        """Keywords of SentenceTransformer and CrossEncoder. Raises InputError for another dtype."""
        import torch

        from mixlm_rerank.model.families import parameter_dtype

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = parameter_dtype(self.dtype) or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
        return {"device": device, "local_files_only": self.offline, "model_kwargs": {"dtype": dtype}}
