"""Systems by a word on the command line: ``cosine``, ``mixlm``, ``full-text``, ``cross-encoder:NAME`` ..."""

from __future__ import annotations

from collections.abc import Callable

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.systems import (
    BiEncoder,
    Cascade,
    CrossEncoder,
    FullTextMode,
    Interpolated,
    System,
    TokenReranker,
)
from mixlm_rerank.model import MixLM

__all__ = ["SYSTEMS_HELP", "make_system"]

SYSTEMS_HELP = (
    "cosine; mixlm or mixlm:K (token budget); verify:M (MixLM, then the best M in full); interpolate:W (with weight W "
    "of the first stage); full-text (the model's own full-text mode); cross-encoder:NAME or cross-encoder:NAME@LENGTH "
    "(any sentence-transformers CrossEncoder, cut to LENGTH tokens)"
)


def make_system(spec: str, model: Callable[[], MixLM]) -> System:
    """The system of one word (see ``SYSTEMS_HELP``); ``model`` gives the MixLM, where it needs one.

    Raises InputError for another word, or a value that is not possible.
    """
    word, _, value = spec.partition(":")
    if word == "cross-encoder" and value:
        source, at, length = value.rpartition("@")
        return CrossEncoder(source, int(length)) if at and length.isdigit() else CrossEncoder(value)
    try:
        if word == "cosine" and not value:
            return BiEncoder(model())
        if word == "mixlm":
            return TokenReranker(model(), int(value) if value else None)
        if word == "verify":
            return Cascade(model(), int(value))
        if word == "interpolate":
            return Interpolated(model(), float(value))
        if word == "full-text" and not value:
            return FullTextMode(model())
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the system {spec!r} needs a number after its colon") from None
    raise InputError(f"no such system: {spec!r}. There are: {SYSTEMS_HELP}")
