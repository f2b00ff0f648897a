"""Where a checkpoint of the Hugging Face hub is taken from, in the words of its own libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

__all__ = ["HubOptions", "checked", "in_cache"]


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


def in_cache(source: str, hub: dict[str, Any]) -> str:
    """Where only local files may be read: the cached folder of a hub id, if there is one; else the source as it is.

    Given the id itself, Transformers asks the hub all the same, for adapters and for details of tokenizers.
    """
    if not hub.get("local_files_only") or Path(source).exists():
        return source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(source, **hub))
    except (HFValidationError, LocalEntryNotFoundError):  # who loads it says so
        return source
