"""A MixLM in ONNX Runtime: exported once with PyTorch, used without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .mixlm import OnnxMixLM, is_exported

if TYPE_CHECKING:
    from .exporting import export

__all__ = ["OnnxMixLM", "export", "is_exported"]


def __getattr__(name: str) -> Any:
    """Import ``export`` on first use: it imports PyTorch."""
    if name != "export":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .exporting import export

    return export
