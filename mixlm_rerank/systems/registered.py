"""Systems of other packages, by an entry point: any of them can stand in ``--systems`` once it is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import get_args

from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.systems.protocol import Kind, System

__all__ = ["registered_systems"]

GROUP = "mixlm_rerank.systems"
MEMBERS = ("name", "description", "kind", "tokens", "pointwise", "seed_group", "prepare", "rank")


def registered_systems() -> dict[str, Callable[[str], System]]:
    """Word -> what makes the system, of the value behind the word's colon ("" without one).

    Nothing is imported before it is made. That raises InputError for a package that fails, and for what is no System.
    """
    return {entry.name: partial(_make, entry) for entry in entry_points(group=GROUP)}


def _make(entry: EntryPoint, value: str) -> System:
    try:
        system: System = entry.load()(value)
    except MixLMError:
        raise
    except Exception as error:  # whatever another package does
        raise InputError(f"the system {entry.name!r} ({entry.value}) fails: {type(error).__name__}: {error}") from error
    lacking = [name for name in MEMBERS if not hasattr(system, name)]
    if lacking:
        raise InputError(f"the system {entry.name!r} ({entry.value}) lacks {', '.join(lacking)}")
    if system.kind not in get_args(Kind):
        kinds = ", ".join(get_args(Kind))
        raise InputError(f"the system {entry.name!r} ({entry.value}) is of kind {system.kind!r}; there are {kinds}")
    return system
