"""The model: item encoder + ranker + readout, with its configuration, loading and saving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import MixLMConfig

if TYPE_CHECKING:
    from .mixlm import MixLM

__all__ = ["MixLM", "MixLMConfig"]


def __getattr__(name: str) -> Any:
    """Import ``MixLM`` on first use: an exported model needs templates and configuration without PyTorch."""
    if name != "MixLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .mixlm import MixLM

    return MixLM
