"""Load checkpoints from the Hugging Face hub or a folder, and check that they are complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..errors import InputError
from .layers import FINAL_NORMS

__all__ = ["HubOptions", "checked", "complete", "in_cache", "load_backbone", "load_tokenizer", "model_folder", "quiet"]
__all__ += ["reason"]


class HubOptions(TypedDict, total=False):
    """Options of the Hugging Face hub; folders need none of them.

    Attributes:
        revision: branch, tag or commit.
        token: access token of an account that may read it; by default that of ``hf auth login``.
        cache_dir: where downloads are kept.
        local_files_only: never touch the network.
    """

    revision: str
    token: str | bool
    cache_dir: str | Path
    local_files_only: bool


def checked(given: HubOptions) -> dict[str, Any]:
    """The options as a dict. Raises TypeError for an unknown name: the hub's functions would misinterpret it."""
    unknown = sorted(given.keys() - HubOptions.__annotations__.keys())
    if unknown:
        names = ", ".join(HubOptions.__annotations__)
        raise TypeError(f"{unknown[0]!r} is no argument. Those that are handed on to the Hugging Face hub: {names}")
    return dict(given)


def in_cache(source: str, hub: dict[str, Any]) -> str:
    """With ``local_files_only``, the cached folder of a hub id, if there is one; else the source as it is.

    Given the id itself, Transformers would still ask the hub for adapters and details of tokenizers.
    """
    if not hub.get("local_files_only") or Path(source).exists():
        return source
    try:
        return str(snapshot_download(source, **hub))
    except (HFValidationError, LocalEntryNotFoundError):  # loading it will report that
        return source


def model_folder(name: str, hub: dict[str, Any]) -> Path:
    """The folder of a saved MixLM: the given folder, or the download of a hub id."""
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"no model folder at {name!r} (expected a folder, a hub id like 'user/model', or 'default')")
    try:
        return Path(snapshot_download(name, **hub))
    except Exception as error:  # the hub client raises many kinds; all mean "not available from here"
        local = hub.get("local_files_only")
        why = "offline, and it is not in the local cache" if local else str(error).partition("\n")[0]
        raise InputError(
            f"no folder {name!r}, and the Hugging Face hub did not give a model of that name ({why})"
        ) from None


def load_backbone(
    source: str, *, word_embeddings: Tensor | None = None, final_norm: bool = True, **options: Any
) -> PreTrainedModel:
    """A checkpoint's model without any head. A pooler is dropped, too: nothing reads it, and saved models stay small.

    ``word_embeddings``: [vocabulary, d], for a checkpoint saved without them. ``final_norm``: False for a checkpoint
    saved without one, see :func:`.layers.without_final_norm`.
    """
    model = complete(AutoModel, source, word_embeddings, () if final_norm else FINAL_NORMS, **options)
    if getattr(model, "pooler", None) is not None:
        setattr(model, "pooler", None)  # noqa: B010 (typed as a module)
    return model


def complete(
    auto_class: Any, source: str, word_embeddings: Tensor | None = None, without: Sequence[str] = (), **options: Any
) -> PreTrainedModel:
    """A checkpoint that lacks no weights; Transformers would fill gaps with random numbers and continue.

    ``without``: children of the model that may be missing. Raises InputError if others are, or a file cannot be read.
    """
    try:
        with quiet():
            model, report = auto_class.from_pretrained(source, output_loading_info=True, **options)
    except Exception as error:  # from Transformers, safetensors, pickle, or the code of an architecture
        raise InputError(f"{source} cannot be loaded: {reason(error)}") from None
    missing = [name for name in report["missing_keys"] if name.partition(".")[0] not in ("pooler", *without)]
    lacking = missing + list(report["mismatched_keys"])
    if word_embeddings is not None:
        table = model.get_input_embeddings().weight
        name = next(name for name, weight in model.named_parameters() if weight is table)
        if name in lacking and word_embeddings.shape == table.shape:
            lacking.remove(name)
            with torch.no_grad():
                table.copy_(word_embeddings)
    if lacking:
        raise InputError(
            f"{source} is not a whole {type(model).__name__}: {len(lacking)} weights are missing or of another shape, "
            f"{lacking[0]!r} for one"
        )
    return cast(PreTrainedModel, model)


def load_tokenizer(source: str, **options: Any) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a checkpoint. Raises InputError if it has no tokenizer, or no fast one."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # a truncated tokenizer.json raises a plain Exception
        raise InputError(f"{source!r} has no tokenizer that can be read here: {error}") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {source!r} has no fast version (tokenizer.json)")
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress loading bars and the report of unused heads: the backbone is loaded without its head on purpose."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def reason(error: Exception) -> str:
    """The type and the first line of a library's error."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
