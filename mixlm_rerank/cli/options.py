"""Options that several commands share, functions that open what they name, and handling of interruptions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from ..errors import InputError, MixLMError
from ..index import TokenIndex
from ..onnx import OnnxMixLM, is_exported
from ..systems.collections import folders_in, open_collection, sampled
from ..systems.loading import Loading, short_name

if TYPE_CHECKING:
    from ..model import MixLM
    from ..systems.first_stages import FirstStage
    from ..systems.workplace import Workplace
    from ..types import Model as AnyModel

__all__ = [
    *("AsJson", "CORPUS_HELP", "Depth", "Device", "Dtype", "FirstStages", "Model", "Models", "Offline", "OwnIndex"),
    *("Places", "Qrels", "Quiet", "QuietBars", "Results", "Sample", "Systems", "Tokens", "Topics"),
    *("check_output", "interruptible", "load_any", "load_model", "open_models", "open_places", "resumable"),
    *("say", "source_and_split"),
]

CORPUS_HELP = (
    "JSONL file, BEIR folder, MS MARCO TSV, TREC SGML, irds:DATASET (ir_datasets) or lucene:INDEX (Pyserini, stored "
    "documents)."
)

AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Depth = Annotated[int, Option(min=1, help="Candidates per query.")]
Device = Annotated[str | None, Option("--device", help="cpu, cuda ... By default a GPU, if there is one.")]
Dtype = Annotated[
    str | None,
    Option(
        "--dtype",
        help="The ranker's: float32, bfloat16, float16, int8 (CPU). By default bfloat16 on a GPU, else float32.",
    ),
]
Tokens = Annotated[int | None, Option(help="Token budget: embedding tokens read per document; by default all.")]
Model = Annotated[str, Option("--model", help="'default', a MixLM folder, or a Hugging Face hub id.")]
Offline = Annotated[bool, Option("--offline", help="Use local files only, never the hub.")]
Quiet = Annotated[bool, Option("--quiet", help="No progress bar.")]
Threads = Annotated[int, Option(min=1, help="Queries searched in parallel.")]

# options of eval report, fit and teacher
Results = Annotated[Path, Option(help="Folder for the results. After an interruption, the same folder resumes.")]
Systems = Annotated[
    str,
    Option(
        help="Comma-separated: mixlm or mixlm:K (token budget K); verify:M (mixlm, then the best M read in full), "
        "verify:M@NAME (read by that cross-encoder); full-text (the same ranker on text); cosine (its item encoder); "
        "cross-encoder:NAME or cross-encoder:NAME@LENGTH; bi-encoder:NAME; max-sim:NAME; multi-vector:NAME; "
        "prettr:NAME@M; mice:NAME@M; all-states; hybrid:NAME; ensemble:FILE; run:FILE; systems of other packages. +W "
        "mixes a system with the first stage at weight W, +rrf by reciprocal ranks; with +topN it ranks the first "
        "stage's best N alone. See docs/evaluation.md."
    ),
]
FirstStages = Annotated[
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
OwnIndex = Annotated[
    str | None, Option("--index", help="An existing token index of the documents; {collection} is filled in.")
]
QuietBars = Annotated[bool, Option("--quiet", help="No progress bars.")]

Places = list["tuple[Workplace, FirstStage]"]


def load_model(name: str, device: str | None = None, dtype: str | None = None, offline: bool = False) -> MixLM:
    from ..model import MixLM

    return MixLM.from_pretrained(name, device=device, dtype=dtype, local_files_only=offline)


def load_any(name: str, device: str | None = None, dtype: str | None = None, offline: bool = False) -> AnyModel:
    """A model that :func:`load_model` loads, or an exported one, which needs no PyTorch."""
    if not is_exported(name):
        return load_model(name, device, dtype, offline)
    if device not in (None, "cpu") or dtype not in (None, "float32"):
        raise InputError(f"{name} was exported to ONNX, for CPUs in float32: leave out --device and --dtype")
    return OnnxMixLM.from_pretrained(name)


def open_judge(name: str | None, device: str | None, dtype: str | None, offline: bool) -> Any:
    """The cross-encoder of ``--verify-with``, if one is given."""
    if name is None:
        return None
    from ..systems.loading import Loading, load_cross_encoder

    return load_cross_encoder(name, loading=Loading(device, None if dtype == "int8" else dtype, offline))


def check_output(path: Path | None) -> None:
    """Raises InputError if no file can be written at ``path``. Call it before the work."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    is_stream = path.exists() and not path.is_file()  # /dev/stdout
    if not is_stream and not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: the folder {folder} is write-protected")


def say(text: str) -> None:
    """Print to stderr what was done; only results go to stdout."""
    typer.echo(text, err=True)


@contextmanager
def interruptible(told: Callable[..., str], *arguments: Path) -> Iterator[None]:
    """Ctrl-C ends the process with exit code 130; ``told(*arguments)`` then says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {told(*arguments)}")
        raise typer.Exit(130) from None


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """Run long work that writes into ``output``. Raises InputError if it cannot be made; Ctrl-C ends the process."""
    try:
        new = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {output}: {error.strerror or error}; choose another folder") from None
    try:
        with interruptible(lambda: f"run the same command again to go on; what {output} holds is safe"):
            yield
    except MixLMError:
        with suppress(OSError):  # unless something was written
            if new:
                output.rmdir()
        raise


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
    """Models by name; each is loaded when it is first needed."""
    names = names or ["default"]
    wanted = {short_name(name) or name: name for name in names}
    if len(wanted) < len(names):
        wanted = dict(zip(names, names, strict=True))
    if len(wanted) < len(names):
        raise InputError(f"models must have different names: {', '.join(names)}")
    options = (loading.device, loading.dtype, loading.offline)
    return {short: cache(partial(load_model, name, *options)) for short, name in wanted.items()}


def _corpus_name(source: str) -> str:
    """The corpus of a collection: all its splits share what is built from its documents."""
    dataset = source.removeprefix("irds:")
    return dataset if dataset != source else Path(source.removeprefix("lucene:")).absolute().name


def source_and_split(collection: str, default: str) -> tuple[str, str]:
    """The two parts of ``SOURCE@SPLIT``; a source without a split gets the default."""
    source, at, split = collection.rpartition("@")
    in_path = "/" in split and not source.startswith("irds:")  # /home/me@work/data
    return (source, split) if at and not in_path and not Path(collection).exists() else (collection, default)
