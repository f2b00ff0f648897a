"""How a checkpoint is read as a bi-encoder, by its sentence-transformers files: pooling, prompts, special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from ..errors import InputError
from .config import Pooling
from .template import around_texts

__all__ = ["Convention", "convention_of", "own_template"]

READ = ("Transformer", "Pooling", "Normalize")  # the modules of an embedding model that MixLM reads as they do
POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
OWN_POOLING = 'choose pooling="mean", "cls" or "last" yourself (the document embedding it starts from is then another)'


@dataclass(frozen=True)
class Convention:
    """What an embedding model expects. Prompts stand before the text, as in sentence-transformers."""

    pooling: Pooling
    query_prompt: str
    document_prompt: str


def convention_of(source: str, **options: Any) -> Convention | None:
    """From ``modules.json`` and what it names; ``None`` for a checkpoint that is no sentence-transformers model.

    Raises InputError for a pooling, or a module after it, that MixLM does not have.
    """
    modules = _json(source, "modules.json", **options)
    pooling = next((module["path"] for module in modules or [] if module["type"].endswith(".Pooling")), None)
    if pooling is None:
        return None
    other = next((module["type"].rpartition(".")[2] for module in modules if not module["type"].endswith(READ)), None)
    if other is not None:
        raise InputError(f"{source!r} has a module {other} after its pooling, which MixLM does not have: {OWN_POOLING}")
    settings = _json(source, f"{pooling}/config.json", **options) or {}
    mode = settings.get("pooling_mode") or _older_mode(settings)
    if mode not in POOLINGS:
        raise InputError(f"{source!r} pools by {mode!r}, which MixLM does not have: {OWN_POOLING}")
    prompts = (_json(source, "config_sentence_transformers.json", **options) or {}).get("prompts") or {}
    document = prompts.get("document") or prompts.get("passage") or ""
    return Convention(POOLINGS[mode], prompts.get("query") or "", document)


def own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer itself puts around a text: ``"[CLS]{text}[SEP]"``, ``"{text}<|endoftext|>"``."""
    return "{text}".join(around_texts(tokenizer, 1))


def _older_mode(settings: Mapping[str, Any]) -> str:
    """Before sentence-transformers 6: one switch a mode."""
    on = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    return "+".join(name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for name in on)


def _json(source: str, name: str, **options: Any) -> Any:
    """A JSON file of a checkpoint (folder or hub id), or None if it has no such file."""
    path = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **options,
    )
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
