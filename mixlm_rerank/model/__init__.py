"""The model: item encoder + ranker + readout, its configuration, and its life on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import MixLMConfig

if TYPE_CHECKING:
    from .mixlm import MixLM

__all__ = ["MixLM", "MixLMConfig"]


def __getattr__(name: str) -> Any:
    """``MixLM`` when it is first used: an exported model has the same templates and configuration, without PyTorch."""
    if name != "MixLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .mixlm import MixLM

    return MixLM
