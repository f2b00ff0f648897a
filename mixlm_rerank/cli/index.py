"""``mixlm-rerank index``: build, inspect and update token indexes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..data.lines import lines
from ..errors import InputError, MixLMError, masked
from ..index import TokenIndex
from ..index.local import LocalStore
from ..index.token_index import IndexInfo
from ..index.updates import Changes
from ..systems.collections import open_documents
from .options import CORPUS_HELP, AsJson, Device, Model, Offline, interruptible, load_any, say

__all__ = ["app"]

app = typer.Typer(help="Build, inspect and update token indexes.", no_args_is_help=True)

Update = Callable[..., Changes]
Folder = Annotated[Path, Argument(help="The index.")]
Corpus = Annotated[str, Argument(help=CORPUS_HELP)]
SkipEmpty = Annotated[bool, Option("--skip-empty", help="Leave out documents without text.")]
Quiet = Annotated[bool, Option("--quiet", help="Print no estimate and no progress bar.")]
ItsModel = Annotated[str | None, Option("--model", help="By default the model that built the index.")]


@app.command("build")
def build(
    corpus: Corpus,
    folder: Annotated[Path, Argument(help="The index: a new folder, or the folder of an interrupted build.")],
    model: Model = "default",
    precision: Annotated[str, Option(help="Number format of the stored tokens: int8, float16 or float32.")] = "int8",
    skip_empty: SkipEmpty = False,
    passages: Annotated[
        bool, Option("--passages", help="Split long documents; a document is ranked by its best passage.")
    ] = False,
    engine: Annotated[str, Option(help="local, or ray for many cores, GPUs or machines.")] = "local",
    shards: Annotated[str | None, Option(help="With Ray: a folder or URL that all workers can reach.")] = None,
    workers: Annotated[
        int | None, Option(help="With Ray: number of workers; by default all GPUs or cores.", min=1)
    ] = None,
    device: Device = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Encode every document of a corpus. After an interruption, the same command resumes."""
    documents = open_documents(corpus)
    with interruptible(_committed, folder):
        index = TokenIndex.build(
            documents,
            load_any(model, device, offline=offline),
            folder,
            precision=precision,
            corpus=corpus,
            skip_empty=skip_empty,
            passages=passages,
            progress=not quiet,
            engine=engine,  # type: ignore[arg-type]  # checked there
            shards=shards,
            workers=workers,
        )
    found = index.info()
    say(f"{folder}: {found.documents:,} documents{_passages(found)}, {found.bytes / 1e6:,.1f} MB")
    if found.cut:
        say(f"{_cut(found)}. To read all of them: index build --passages")


@app.command("info")
def info(folder: Folder, as_json: AsJson = False) -> None:
    """Show size, shape and identity of an index."""
    found = TokenIndex(folder).info()
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    manifest = found.manifest
    dead = f"; {found.dead:,} dead records (index compact)" if found.dead else ""
    rows = {
        "documents": f"{found.documents:,}{_passages(found)}{dead}",
        "read": _cut(found),
        "size": f"{found.bytes / 1e6:,.1f} MB, {found.bytes_per_document:,.0f} bytes a document",
        "tokens": f"{manifest.tokens} a document, {manifest.dim} dimensions, {manifest.precision}",
        **({"titles": f"up to {manifest.title_tokens} tokens a document"} if manifest.title_tokens else {}),
        "item encoder": f"{manifest.fingerprint} ({manifest.model})",
        "corpus": manifest.corpus,
    }
    for name, value in rows.items():
        typer.echo(f"{name:<13} {value}")


def _add_update(name: str, update: Update, purpose: str) -> None:
    """Register a command that writes the documents of a corpus."""

    @app.command(name, help=purpose)
    def write(
        folder: Folder,
        corpus: Corpus,
        model: ItsModel = None,
        skip_empty: SkipEmpty = False,
        device: Device = None,
        offline: Offline = False,
        quiet: Quiet = False,
    ) -> None:
        _write(update, folder, corpus, model, device, offline, skip_empty=skip_empty, progress=not quiet)


_add_update("add", TokenIndex.add, "Add documents. A docid that is in the index with another text is refused.")
_add_update("replace", TokenIndex.replace, "Add or overwrite documents. Only new and changed texts are encoded.")


@app.command("delete")
def delete(
    folder: Folder,
    docids: Annotated[list[str] | None, Argument(help="Docids to delete.")] = None,
    file: Annotated[Path | None, Option("--file", help="File of docids, one per line.")] = None,
) -> None:
    """Delete documents by docid, all or none."""
    wanted = [*(docids or []), *(line.strip() for _, line in (lines(file) if file else ()))]
    if not wanted:
        raise InputError("nothing to delete: give docids, or --file")
    say(f"{folder}: {TokenIndex(folder).delete(wanted)}")


@app.command("sync")
def sync(
    folder: Folder,
    corpus: Corpus,
    dry_run: Annotated[bool, Option("--dry-run", help="Only print what would change.")] = False,
    yes: Annotated[bool, Option("--yes", help="Proceed even if most of the index would be deleted.")] = False,
    model: ItsModel = None,
    skip_empty: SkipEmpty = False,
    device: Device = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Bring the index up to date with a corpus: encode what is new or changed, delete what is gone."""
    index = TokenIndex(folder)
    changes = index.compare(open_documents(corpus), skip_empty=skip_empty)
    if dry_run:
        typer.echo(f"{folder}: {changes}")
        return
    if 2 * changes.deleted > len(index) and not yes:
        raise InputError(f"most of {folder} would be deleted ({changes}): if {corpus} is the right corpus, add --yes")
    _write(TokenIndex.sync, folder, corpus, model, device, offline, skip_empty=skip_empty, progress=not quiet)


@app.command("compact")
def compact(folder: Folder, quiet: Quiet = False) -> None:
    """Free the space of deleted and replaced documents. Readers are not interrupted."""
    with interruptible(_committed, folder):
        say(f"{folder}: {TokenIndex(folder).compact(progress=not quiet) / 1e6:,.1f} MB saved")


@app.command("verify")
def verify(
    folder: Folder,
    drop: Annotated[bool, Option("--drop", help="Remove damaged documents; index sync encodes them again.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check every document against its checksum. Exit code 1 if one is damaged."""
    found = TokenIndex.verify(folder, drop=drop, progress=not quiet)
    for docid, why in found.damaged.items():
        typer.echo(f"{docid}\t{why}")
    if not found.damaged:
        say(f"{folder}: {found.documents:,} documents, all intact")
        return
    mend = "removed" if drop else "to remove them: --drop"
    say(
        f"{folder}: {len(found.damaged):,} of {found.documents:,} documents are damaged; {mend}; then encode them "
        f"again: mixlm-rerank index sync {folder} CORPUS"
    )
    raise typer.Exit(1)


@app.command("copy")
def copy(
    folder: Folder, target: Annotated[Path, Argument(help="The copy: a new folder.")], quiet: Quiet = False
) -> None:
    """Make a compact copy in a new folder."""
    say(f"{target}: {len(TokenIndex(folder).copy(target, progress=not quiet)):,} documents")


@app.command("export")
def export(
    folder: Folder,
    url: Annotated[str, Argument(help="A folder, or a URL that fsspec supports (s3://...).")],
    quiet: Quiet = False,
) -> None:
    """Write the index as Parquet shards."""
    TokenIndex(folder).export(url, progress=not quiet)


@app.command("import")
def import_from(
    url: Annotated[
        str,
        Argument(
            help="Parquet shards, or Parquet of your own vectors (columns docid and vectors): a file, a folder, or a "
            "URL that fsspec supports."
        ),
    ],
    folder: Annotated[Path, Argument(help="The index: a new folder, or the folder of an interrupted import.")],
    model: Annotated[
        str | None, Option("--model", help="For vectors of your own: the model that they are for.")
    ] = None,
    precision: Annotated[
        str, Option(help="Number format of your vectors in the index: int8, float16 or float32.")
    ] = "int8",
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Make an index from Parquet shards. After an interruption, the same command resumes."""
    own = None if model is None else load_any(model, "cpu", offline=offline)
    with interruptible(_committed, folder):
        index = TokenIndex.import_from(url, folder, model=own, precision=precision, progress=not quiet)
        say(f"{folder}: {len(index):,} documents")


@app.command("push")
def push(
    folder: Folder,
    url: Annotated[str, Argument(help="redis://HOST:PORT/DB#NAME")],
    ttl: Annotated[int | None, Option(help="Seconds after which Redis deletes the index.", min=1)] = None,
    quiet: Quiet = False,
) -> None:
    """Copy the index to Redis, or update the copy. After an interruption, the same command resumes."""
    name = masked(url)
    with interruptible(lambda: f"what {name} holds is safe; run the same command again to go on"):
        say(f"{name}: {TokenIndex(folder).push(url, ttl=ttl, progress=not quiet)}")


def _passages(found: IndexInfo) -> str:
    return f" in {found.records:,} passages" if found.manifest.passages else ""


def _cut(found: IndexInfo) -> str:
    if found.cut is None:
        own = found.manifest.of_vectors
        return "no text: documents are vectors" if own else "unknown: an earlier version built it"
    if not found.cut:
        return "all of every document"
    return (
        f"{found.cut:,} of {found.documents:,} documents were cut to {found.manifest.text_tokens} tokens: "
        f"{found.share_read:.0%} of their tokens were read"
    )


def _write(
    update: Update, folder: Path, corpus: str, model: str | None, device: str | None, offline: bool, **options: bool
) -> None:
    """Add, replace or sync, with the model that built the index unless another is named."""
    index, documents = TokenIndex(folder), open_documents(corpus)
    with interruptible(_committed, folder):
        encoder = load_any(model or index.manifest.model, device, offline=offline)
        say(f"{folder}: {update(index, documents, encoder, **options)}")


def _committed(folder: Path) -> str:
    """Message after Ctrl-C. Documents are committed in parts, so some are safe."""
    try:
        count = len(LocalStore(folder))
    except MixLMError:
        count = 0
    return f"{count:,} documents are safe; run the same command again to go on"
