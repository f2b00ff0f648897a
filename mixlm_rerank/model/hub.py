"""Where a checkpoint of the Hugging Face hub is taken from, in the words of its own libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

__all__ = ["HubOptions", "checked"]


class HubOptions(TypedDict, total=False):
    """Folders need none of them.

    Attributes:
        revision: branch, tag or commit.
        token: of an account that may read it; by default that of ``hf auth login``.
        cache_dir: where downloads are kept.
        local_files_only: never touch the network.
    """

    revision: str
    token: str | bool
    cache_dir: str | Path
    local_files_only: bool


def checked(given: HubOptions) -> dict[str, Any]:
    """Raises TypeError for a name that is none of them: the hub's own functions would take it for something else."""
    unknown = sorted(given.keys() - HubOptions.__annotations__.keys())
    if unknown:
        names = ", ".join(HubOptions.__annotations__)
        raise TypeError(f"{unknown[0]!r} is no argument. Those that are handed on to the Hugging Face hub: {names}")
    return dict(given)
