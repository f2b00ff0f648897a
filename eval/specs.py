"""Systems and first stages by a word on the command line: ``mixlm:4+0.2``, ``cross-encoder:NAME@64``, ``bm25``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.first_stages import BM25, DensePyserini, DenseSentenceTransformers, FirstStage, RunFile
from mixlm_rerank.eval.loading import Loading, short_name
from mixlm_rerank.eval.members import DEFAULT_WEIGHTS, read_members
from mixlm_rerank.eval.systems import (
    BiEncoder,
    Cascade,
    Cosine,
    CrossEncoder,
    Ensemble,
    FullTextMode,
    Interpolated,
    RankedElsewhere,
    TokenReranker,
)
from mixlm_rerank.eval.systems.protocol import System
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.int8 import in_int8
from mixlm_rerank.ranking import Weight

__all__ = ["FIRST_STAGES", "SYSTEMS", "make_first_stage", "make_systems"]

SYSTEMS = (
    "mixlm or mixlm:K (token budget K) or mixlm:K@int8 (ranker in int8); verify:M (MixLM, then the best M read in "
    "full); full-text (the same ranker on text); cosine (its item encoder); cross-encoder:NAME or "
    "cross-encoder:NAME@LENGTH; bi-encoder:NAME; max-sim:NAME (late interaction over a bi-encoder's token states); "
    "hybrid:NAME (that and BM25); ensemble:FILE (a teacher whose weights `eval teacher` has fitted); run:FILE (a TREC "
    "run of other software); any of them with +W, mixed with the first stage at weight W, or with +rrf (reciprocal "
    "rank fusion)"
)
FIRST_STAGES = (
    "bm25 or bm25-multifield (Pyserini); run:FILE, with {collection} and {split} filled in; dense:NAME (any "
    "SentenceTransformer, exact); faiss:FOLDER@ENCODER (Pyserini)"
)

Make = Callable[[MixLM, str, str | None], System]

# word -> how the system is made of a MixLM, the value after the colon, and the seed's name
OF_MIXLM: dict[str, Make] = {
    "mixlm": lambda model, value, seed: TokenReranker(model, int(value) if value else None, seed=seed),
    "mixlm@int8": lambda model, value, seed: TokenReranker(in_int8(model), int(value), seed=seed),
    "verify": lambda model, value, seed: Cascade(model, int(value), seed=seed),
    "full-text": lambda model, value, seed: FullTextMode(model, seed=seed),
    "cosine": lambda model, value, seed: Cosine(model, seed=seed),
}
WITH_VALUE = {"verify", "cross-encoder", "bi-encoder", "max-sim", "hybrid", "ensemble", "run"}
WITHOUT_VALUE = {"full-text", "cosine"}


def make_systems(specs: str, models: Mapping[str, Callable[[], MixLM]], loading: Loading = Loading()) -> list[System]:
    """The systems of comma-separated words (see ``SYSTEMS``).

    ``models``: name -> what loads it. Several are seeds of one recipe: each word makes a system of every one.
    ``loading``: of the other models.

    Raises InputError for another word, or a value that is not possible.
    """
    words = [word.strip() for word in specs.split(",") if word.strip()]
    if not words:
        raise InputError(f"no systems are named. There are: {SYSTEMS}")
    makers = [
        make for word in words for make in _makers(word, models, loading)
    ]  # all words are looked at before a model loads
    systems = [make() for make in makers]
    return list({(system.name, system.description): system for system in systems}.values())  # mixlm:4,mixlm is one


def _makers(spec: str, models: Mapping[str, Callable[[], MixLM]], loading: Loading) -> list[Callable[[], System]]:
    """What makes each system of one word."""
    whole, plus, last = spec.rpartition("+")
    weight = _weight(last) if plus else None
    if weight is not None and whole.startswith("verify"):
        raise InputError(f"{spec!r}: what is read in full cannot be mixed afterwards; mix another system")
    if weight is not None:
        return [partial(_interpolated, make, weight) for make in _makers(whole, models, loading)]
    word, colon, value = spec.partition(":")
    if word == "mixlm" and value.endswith("@int8"):
        word, value = "mixlm@int8", value.removesuffix("@int8")
    known = word in OF_MIXLM or word in WITH_VALUE
    if not known or (word in WITH_VALUE and not value) or (word in WITHOUT_VALUE and colon):
        raise InputError(f"no such system: {spec!r}. There are: {SYSTEMS}")
    if word == "bi-encoder":
        return [partial(BiEncoder, value, loading)]
    if word in ("max-sim", "hybrid", "ensemble"):
        return [partial(Ensemble, *_ensemble(word, value), loading)]
    if word == "run":
        return [partial(RankedElsewhere, Path(value))]
    if word == "cross-encoder":
        source, _, length = value.rpartition("@")
        if source and length.isdecimal() and not Path(value).exists():
            return [partial(CrossEncoder, source, int(length), loading)]
        return [partial(CrossEncoder, value, None, loading)]
    if colon and not value.isdecimal():
        raise InputError(f"the system {spec!r} needs a whole number after its colon")
    return [partial(_of_mixlm, word, value, load, name if len(models) > 1 else None) for name, load in models.items()]


def _ensemble(word: str, value: str) -> tuple[str, dict[str, float]]:
    """The name and the weights of a weighted sum."""
    if word == "ensemble":
        return Path(value).stem, read_members(Path(value))
    if word == "max-sim":
        return f"MaxSim {short_name(value)}", {f"max-sim:{value}": 1.0}
    return "hybrid teacher", {
        f"{kind}:{value}" if kind == "max-sim" else kind: weight for kind, weight in DEFAULT_WEIGHTS.items()
    }


def _interpolated(make: Callable[[], System], weight: Weight) -> System:
    return Interpolated(make(), weight)


def _of_mixlm(word: str, value: str, load: Callable[[], MixLM], seed: str | None) -> System:
    return OF_MIXLM[word](load(), value, seed)


def make_first_stage(
    spec: str, source: str, split: str, folder: Path, *, loading: Loading = Loading(), progress: bool = False
) -> FirstStage:
    """The first stage of one word (see ``FIRST_STAGES``) for one collection; what it builds goes into ``folder``.

    Raises InputError for another word, and for a model that cannot be loaded.
    """
    word, _, value = spec.partition(":")
    if spec == "bm25":
        return BM25(folder / "lucene", progress=progress)
    if spec == "bm25-multifield":
        return BM25(folder / "lucene-multifield", "multifield", progress=progress)
    if word == "run" and value:
        try:
            return RunFile(value.format(collection=source, split=split))
        except (AttributeError, LookupError, TypeError, ValueError):
            raise InputError(
                f"run:FILE may have {{collection}} and {{split}} in it, no other braces: {value}"
            ) from None
    if word == "dense" and value:
        return DenseSentenceTransformers(value, folder / "embeddings", loading=loading, progress=progress)
    index, _, encoder = value.partition("@")
    if word == "faiss" and index and encoder:
        return DensePyserini(index, encoder)
    raise InputError(f"no such first stage: {spec!r}. There are: {FIRST_STAGES}")


def _weight(text: str) -> Weight | None:
    try:
        return "rrf" if text == "rrf" else float(text)
    except ValueError:
        return None
