"""How models are loaded, the peers' as ours: a comparison on one device, in one dtype."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Loading", "short_name"]


def short_name(source: str) -> str:
    """What tables call a model: a folder called "model", as our own trainings leave it, goes by the one that it is in.

    >>> short_name("run/seed1/model"), short_name("user/some-model"), short_name("model")
    ('seed1', 'some-model', 'model')
    """
    path = Path(source)
    return path.parent.name or path.name if path.name == "model" else path.name


@dataclass(frozen=True)
class Loading:
    """Attributes:
    device: ``"cpu"``, ``"cuda"`` ...; None: a GPU if there is one.
    dtype: of rankers, ``"float32"``, ``"bfloat16"`` or ``"float16"``; None: bfloat16 on a GPU, else float32.
    offline: never ask the hub.
    """

    device: str | None = None
    dtype: str | None = None
    offline: bool = False

    def of_rankers(self) -> dict[str, Any]:
        """Keywords of CrossEncoder. Raises InputError for another dtype."""
        import torch

        from mixlm_rerank.model.precision import parameter_dtype

        on_gpu = self.device_name().startswith("cuda")
        return self._options(parameter_dtype(self.dtype) or (torch.bfloat16 if on_gpu else torch.float32))

    def of_embedding_models(self) -> dict[str, Any]:
        """Keywords of SentenceTransformer: always float32, as our item encoder is."""
        import torch

        return self._options(torch.float32)

    def device_name(self) -> str:
        """What ``device`` comes to here."""
        import torch

        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def _options(self, dtype: Any) -> dict[str, Any]:
        return {"device": self.device_name(), "local_files_only": self.offline, "model_kwargs": {"dtype": dtype}}
