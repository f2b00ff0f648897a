"""Systems and first stages named by a word on the command line: ``mixlm:4+0.2``, ``cross-encoder:NAME@64``, ``bm25``.

Other packages register their own systems through an entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fast.int8 import in_int8
from mixlm_rerank.ranking import parsed_weight
from mixlm_rerank.systems.combined import Ensemble, Interpolated, RankedElsewhere, Shallow
from mixlm_rerank.systems.first_stages import BM25, DensePyserini, FirstStage, RunFile
from mixlm_rerank.systems.loading import Loading, short_name
from mixlm_rerank.systems.members import DEFAULT_WEIGHTS, read_members
from mixlm_rerank.systems.mixlm import Cascade, Cosine, FullTextMode, TokenReranker
from mixlm_rerank.systems.protocol import Kind, System
from mixlm_rerank.systems.sentence_transformers import BiEncoder, CrossEncoder, DenseSentenceTransformers
from mixlm_rerank.systems.token_states import AllStates, MultiVector

if TYPE_CHECKING:
    from mixlm_rerank.integrations.lucene import Fields

__all__ = ["FIRST_STAGES", "SYSTEMS", "filled_in", "make_first_stage", "make_systems", "name_of", "unique"]

SYSTEMS = (
    "mixlm or mixlm:K (token budget K), with @int8 for a ranker in int8; verify:M (MixLM, then the best M read in "
    "full) or verify:M@NAME (read by that cross-encoder); full-text (the same ranker on text); cosine (its item "
    "encoder); cross-encoder:NAME or cross-encoder:NAME@LENGTH; bi-encoder:NAME; max-sim:NAME (late interaction over a "
    "bi-encoder's token states); "
    "multi-vector:NAME or multi-vector:NAME@TOKENS (ColBERT and its kind, a vector for so many tokens); prettr:NAME@M "
    "and mice:NAME@M (a cross-encoder whose layers below M read documents alone, all their states kept); all-states "
    "(the same of a MixLM with a mix layer); "
    "hybrid:NAME (that and BM25); ensemble:FILE (a teacher whose weights `eval teacher` has fitted); run:FILE (a TREC "
    "run of other software); any of them with +W, mixed with the first stage at weight W, with +rrf (reciprocal "
    "rank fusion), or with +topN (it ranks the first stage's best N, the others stay below)"
)
FIRST_STAGES = (
    "bm25 or bm25-multifield (Pyserini), with :INDEX, :k1=0.9,b=0.4 or :INDEX@k1=0.9,b=0.4 for a Lucene index of your "
    "own and other settings; run:FILE; dense:NAME (any SentenceTransformer, exact); faiss:FOLDER@ENCODER (Pyserini). "
    "{collection} and {split} are filled in"
)

BM25_FOLDERS = {"bm25": "lucene", "bm25-multifield": "lucene-multifield"}  # where an index is built

GROUP = "mixlm_rerank.systems"
MEMBERS = ("name", "description", "kind", "tokens", "pointwise", "seed_group", "prepare", "rank")

Make = Callable[[], System]


def _at_number(value: str) -> tuple[str, int | None]:
    """A model's name, and the number after an @ if there is one."""
    source, _, number = value.rpartition("@")
    has_number = source and number.isdecimal() and not Path(value).exists()
    return (source, int(number)) if has_number else (value, None)


# word -> function that makes the system from a MixLM, the value after the colon, and the seed's name
OF_MIXLM: dict[str, Callable[..., System]] = {
    "mixlm": lambda model, value, seed: TokenReranker(model, int(value) if value else None, seed=seed),
    "mixlm@int8": lambda model, value, seed: TokenReranker(in_int8(model), int(value) if value else None, seed=seed),
    "verify": lambda model, value, seed, **reader: Cascade(model, int(value), seed=seed, **reader),
    "full-text": lambda model, value, seed: FullTextMode(model, seed=seed),
    "all-states": lambda model, value, seed: AllStates(model, seed=seed),
    "cosine": lambda model, value, seed: Cosine(model, seed=seed),
}
# word -> function from the value after the colon to a maker of the system
OF_VALUE: dict[str, Callable[[str, Loading], Make]] = {
    "cross-encoder": lambda value, loading: partial(CrossEncoder, *_at_number(value), loading),
    "prettr": lambda value, loading: partial(AllStates.cut, *_at_number(value), loading, fixed_documents=False),
    "mice": lambda value, loading: partial(AllStates.cut, *_at_number(value), loading, fixed_documents=True),
    "multi-vector": lambda value, loading: partial(MultiVector, *_at_number(value), loading),
    "bi-encoder": lambda name, loading: partial(BiEncoder, name, loading),
    "max-sim": lambda name, loading: partial(Ensemble, f"MaxSim {short_name(name)}", {f"max-sim:{name}": 1.0}, loading),
    "hybrid": lambda name, loading: partial(
        Ensemble,
        "hybrid teacher",
        {f"max-sim:{name}": DEFAULT_WEIGHTS["max-sim"], "bm25": DEFAULT_WEIGHTS["bm25"]},
        loading,
    ),
    "ensemble": lambda path, loading: partial(Ensemble, Path(path).stem, read_members(Path(path)), loading),
    "run": lambda path, loading: partial(RankedElsewhere, Path(path)),
}
WITHOUT_VALUE = {"full-text", "cosine", "all-states"}

Named = dict[str, list[System]]  # by the word that requested them


def make_systems(specs: str, models: Mapping[str, Callable[[], MixLM]], loading: Loading = Loading()) -> Named:
    """Make the systems named by comma-separated words (see ``SYSTEMS``).

    ``models``: name -> function that loads it. Several models are seeds of one recipe: each word makes a system of
    every model. ``loading``: how all other models are loaded.

    Raises InputError for an unknown word, or a value that is not possible.
    """
    words = dict.fromkeys(word.strip() for word in specs.split(",") if word.strip())
    if not words:
        raise InputError(f"no systems are named. There are: {SYSTEMS}")
    makers = {word: _makers(word, models, loading) for word in words}  # all words are checked before a model loads
    made: dict[tuple[str, str], System] = {}
    named: Named = {}
    for word, own in makers.items():
        systems = [make() for make in own]  # mixlm:4 and mixlm may be the same
        named[word] = [made.setdefault((system.name, system.description), system) for system in systems]
    return named


def unique(systems: Named) -> list[System]:
    """Each system once, in the order of the request."""
    return list({id(system): system for own in systems.values() for system in own}.values())


def name_of(word: str, systems: Named) -> str:
    """A system's name, given that name or the word that requested it.

    Raises InputError for a word that stands for several seeds.
    """
    found = [system.name for system in systems.get(word, ())]
    if len(found) > 1:
        raise InputError(f"{word!r} stands for several systems: name one of {', '.join(found)}")
    return found[0] if found else word


def _makers(spec: str, models: Mapping[str, Callable[[], MixLM]], loading: Loading) -> list[Make]:
    """The makers of the systems of one word."""
    whole, plus, last = spec.rpartition("+")
    named = spec.partition(":")[2]
    if plus and last.startswith("top") and last[3:].isdecimal() and not (named and Path(named).exists()):
        return [partial(lambda make: Shallow(make(), int(last[3:])), make) for make in _makers(whole, models, loading)]
    weight = parsed_weight(last) if plus else None
    if weight is not None:
        if whole.startswith("verify"):
            raise InputError(f"{spec!r}: what is read in full cannot be mixed afterwards; mix another system")
        return [partial(lambda make: Interpolated(make(), weight), make) for make in _makers(whole, models, loading)]
    word, colon, value = spec.partition(":")
    if word == "mixlm" and value.endswith("@int8"):
        word, value = "mixlm@int8", value.removesuffix("@int8")
    reader: dict[str, Any] = {}
    if word == "verify" and "@" in value:
        value, _, source = value.partition("@")
        if not source:
            raise InputError(f"the system {spec!r} names no cross-encoder after its @")
        source, length = _at_number(source)
        reader = {"cross_encoder": source, "max_length": length, "loading": loading}
    if word in OF_VALUE and value:
        return [OF_VALUE[word](value, loading)]
    if word not in OF_MIXLM or (word == "verify" and not value) or (word in WITHOUT_VALUE and colon):
        known = word in OF_MIXLM or word in OF_VALUE
        registered = {} if known else {entry.name: entry for entry in entry_points(group=GROUP)}
        if word in registered:
            return [partial(_registered, registered[word], value)]
        others = f"; and {', '.join(registered)}" if registered else ""
        near = "" if known else _nearest(word, [*OF_MIXLM, *OF_VALUE, *registered])
        raise InputError(f"no such system: {spec!r}{near}. There are: {SYSTEMS}{others}")
    if colon and not value.isdecimal():
        raise InputError(f"the system {spec!r} needs a whole number after its colon")
    return [
        partial(
            lambda load, seed: OF_MIXLM[word](load(), value, seed, **reader), load, name if len(models) > 1 else None
        )
        for name, load in models.items()
    ]


def _registered(entry: EntryPoint, value: str) -> System:
    """Load a system of another package. Raises InputError if that fails, or the result is not a System."""
    try:
        system: System = entry.load()(value)
    except MixLMError:
        raise
    except Exception as error:  # other packages may raise anything
        raise InputError(f"the system {entry.name!r} ({entry.value}) fails: {type(error).__name__}: {error}") from error
    lacking = [name for name in MEMBERS if not hasattr(system, name)]
    if lacking:
        raise InputError(f"the system {entry.name!r} ({entry.value}) lacks {', '.join(lacking)}")
    if system.kind not in get_args(Kind):
        kinds = ", ".join(get_args(Kind))
        raise InputError(f"the system {entry.name!r} ({entry.value}) is of kind {system.kind!r}; there are {kinds}")
    return system


def make_first_stage(
    spec: str, source: str, split: str, folder: Path, *, loading: Loading = Loading(), progress: bool = False
) -> FirstStage:
    """The first stage of one word (see ``FIRST_STAGES``) for one collection; what it builds goes into ``folder``.

    Raises InputError for an unknown word, a model that cannot be loaded, and a Lucene index that does not exist.
    """
    word, colon, value = spec.partition(":")
    value = filled_in(spec, value, source, split)
    if word in BM25_FOLDERS and bool(colon) == bool(value):
        return _bm25(word, value, folder, progress)
    if word == "run" and value:
        return RunFile(value)
    if word == "dense" and value:
        return DenseSentenceTransformers(value, folder / "embeddings", loading, progress=progress)
    index, _, encoder = value.partition("@")
    if word == "faiss" and index and encoder:
        return DensePyserini(index, encoder)
    near = _nearest(word, [*BM25_FOLDERS, "run", "dense", "faiss"])
    raise InputError(f"no such first stage: {spec!r}{near}. There are: {FIRST_STAGES}")


def _bm25(word: str, value: str, folder: Path, progress: bool) -> BM25:
    own, _, settings = value.rpartition("@")
    if "=" not in settings or Path(value).is_dir():
        own, settings = value, ""
    try:
        numbers = {name: float(number) for name, number in (pair.split("=") for pair in settings.split(",") if pair)}
    except ValueError:
        numbers = {"": 0.0}
    if not numbers.keys() <= {"k1", "b"}:
        raise InputError(f"the settings of BM25 are k1 and b, as in {word}:INDEX@k1=0.9,b=0.4; not {settings!r}")
    if own and not Path(own).is_dir():
        raise InputError(f"no Lucene index at {own} (make one: mixlm-rerank bm25 index CORPUS {own})")
    fields: Fields = "multifield" if word.endswith("multifield") else "flat"
    return BM25(own or folder / BM25_FOLDERS[word], fields, progress=progress, **numbers)


def filled_in(spec: str, value: str, source: str, split: str) -> str:
    """``value`` with the collection's folder and split in place of ``{collection}`` and ``{split}``.

    Raises InputError for other braces.
    """
    try:
        return value.format(collection=source, split=split)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise InputError(f"{spec!r} may have {{collection}} and {{split}} in it, no other braces") from None


def _nearest(word: str, words: Iterable[str]) -> str:
    """
    >>> _nearest("mixml", ["mixlm", "cosine"]), _nearest("MixLM", ["mixlm"]), _nearest("zebra", ["mixlm"])
    (" (did you mean 'mixlm'?)", " (did you mean 'mixlm'?)", '')
    """
    found = get_close_matches(word.lower(), words, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""
