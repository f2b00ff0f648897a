"""Loading the models of sentence-transformers, with what is wrong said in words."""

from __future__ import annotations

import importlib
from typing import Any

from safetensors import SafetensorError

from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.eval.loading import Loading

__all__ = ["load_cross_encoder", "load_sentence_transformer"]


def _library(purpose: str) -> Any:
    """The library. Raises MissingDependency if it is not installed, naming what it is needed for."""
    try:
        return importlib.import_module("sentence_transformers")
    except ImportError:
        raise MissingDependency(f"{purpose} needs sentence-transformers: pip install sentence-transformers") from None


def load_sentence_transformer(name_or_path: str, loading: Loading = Loading()) -> Any:
    """The model. Raises InputError if it cannot be loaded, MissingDependency without sentence-transformers."""
    library = _library("a bi-encoder")
    try:
        model = library.SentenceTransformer(name_or_path, **loading.of_sentence_transformers())
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"sentence-transformers cannot load the model {name_or_path!r}: {reason}") from None
    # Transformers makes one up where its files are missing: every word would be unknown
    tokenizer = getattr(model, "tokenizer", None)
    if len(getattr(tokenizer, "all_special_tokens", ())) >= len(tokenizer.get_vocab() if tokenizer else "any"):
        raise InputError(f"sentence-transformers cannot load the model {name_or_path!r}: it has no tokenizer")
    return model


def load_cross_encoder(source: str, max_length: int | None = None, loading: Loading = Loading()) -> Any:
    """A CrossEncoder that gives one score a pair.

    Raises InputError if it cannot be loaded, or gives several; MissingDependency without sentence-transformers.
    """
    library = _library("a cross-encoder")
    try:
        model = library.CrossEncoder(source, max_length=max_length, **loading.of_sentence_transformers())
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source!r} is not a cross-encoder that can be read here: {reason}") from None
    if model.num_labels != 1:
        raise InputError(f"{source!r} gives a pair {model.num_labels} scores: a reranker must give one")
    return model
