"""What ``eval report``, ``fit`` and ``teacher`` share: their options, collections with first stages, and models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from ..errors import InputError
from ..index import TokenIndex
from ..systems.collections import folders_in, open_collection, sampled
from ..systems.loading import Loading, short_name
from .options import load_model

if TYPE_CHECKING:
    from ..model import MixLM
    from ..systems.first_stages import FirstStage
    from ..systems.workplace import Workplace

__all__ = ["open_models", "open_places", "source_and_split"]

Output = Annotated[Path, Option(help="Folder for the results. After an interruption, the same folder resumes.")]
Systems = Annotated[
    str,
    Option(
        help="Comma-separated: mixlm or mixlm:K (token budget K); verify:M (mixlm, then the best M read in full); "
        "full-text (the same ranker on text); cosine (its item encoder); cross-encoder:NAME or "
        "cross-encoder:NAME@LENGTH; bi-encoder:NAME; max-sim:NAME; multi-vector:NAME; prettr:NAME@M; mice:NAME@M; "
        "all-states; hybrid:NAME; ensemble:FILE; run:FILE; systems of other packages. +W mixes a system with the first "
        "stage at weight W, +rrf by reciprocal ranks. See docs/evaluation.md."
    ),
]
FirstStageOption = Annotated[
    str,
    Option(
        help="bm25 or bm25-multifield (Pyserini); bm25:INDEX, bm25:INDEX@k1=0.9,b=0.4 (your own Lucene index and "
        "settings); run:FILE; dense:NAME (a SentenceTransformer); faiss:FOLDER@ENCODER (Pyserini). {collection} and "
        "{split} are filled in."
    ),
]
Models = Annotated[
    list[str] | None,
    Option("--model", help="The MixLM: 'default', a folder or a hub id. Repeat it for several seeds of one recipe."),
]
Topics = Annotated[Path | None, Option(help="Queries, for a collection without its own (any format).")]
Qrels = Annotated[Path | None, Option(help="Judgments, for a collection without its own.")]
Sample = Annotated[int | None, Option(min=1, help="Draw at most this many queries of each collection at random.")]
Index = Annotated[
    str | None, Option("--index", help="An existing token index of the documents; {collection} is filled in.")
]
Quiet = Annotated[bool, Option("--quiet", help="No progress bars.")]

Places = list["tuple[Workplace, FirstStage]"]


def open_places(
    collections: Sequence[str],
    output: Path,
    first_stage: str,
    topics: Path | None,
    qrels: Path | None,
    sample: int | None,
    index: str | None,
    loading: Loading,
    progress: bool,
    default_split: str = "test",
) -> Places:
    """Each collection with its folder under ``output``, and the first stage for it."""
    from ..systems.ranked import slug
    from ..systems.specs import filled_in, make_first_stage
    from ..systems.workplace import Workplace

    sources = [source_and_split(collection, default_split) for collection in collections]
    if len(sources) > 1 and (topics or qrels):
        raise InputError("--topics and --qrels belong to one collection: give only that one")
    if not (topics or qrels):
        sources = [(path, split) for source, split in sources for path in folders_in(source, split) or [source]]
    places = []
    for source, split in sources:
        whole = open_collection(source, split, topics=topics, qrels=qrels)
        collection, indexes = sampled(whole, sample), output / slug(_corpus_name(source))
        stage = make_first_stage(first_stage, source, split, indexes, loading=loading, progress=progress)
        own = None if index is None else TokenIndex(filled_in(index, index, source, split))
        places.append((Workplace(collection, output / slug(collection.name), indexes, progress, own), stage))
    if len({work.folder for work, _ in places}) < len(places):
        raise InputError(f"collections must have different names: {', '.join(w.collection.name for w, _ in places)}")
    return places


def open_models(names: Sequence[str] | None, loading: Loading) -> dict[str, Callable[[], MixLM]]:
    """By name, each loaded when it is first needed."""
    names = names or ["default"]
    wanted = {short_name(name) or name: name for name in names}
    if len(wanted) < len(names):
        wanted = dict(zip(names, names, strict=True))
    if len(wanted) < len(names):
        raise InputError(f"models must have different names: {', '.join(names)}")
    options = (loading.device, loading.dtype, loading.offline)
    return {short: cache(partial(load_model, name, *options)) for short, name in wanted.items()}


def _corpus_name(source: str) -> str:
    """Splits of one corpus share what is built of its documents."""
    dataset = source.removeprefix("irds:")
    return dataset if dataset != source else Path(source.removeprefix("lucene:")).absolute().name


def source_and_split(collection: str, default: str) -> tuple[str, str]:
    """``SOURCE@SPLIT``, or a source alone and the default."""
    source, at, split = collection.rpartition("@")
    in_path = "/" in split and not source.startswith("irds:")  # /home/me@work/data
    return (source, split) if at and not in_path and not Path(collection).exists() else (collection, default)
