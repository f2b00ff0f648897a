"""``mixlm-rerank index``: build a token index, and look at one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .options import CORPUS_HELP, Device, Model, Offline, load_model, open_documents

__all__ = ["app"]

app = typer.Typer(help="Build a token index, and look at one.", no_args_is_help=True)


@app.command("build")
def build(
    corpus: Annotated[str, typer.Argument(help=CORPUS_HELP)],
    folder: Annotated[Path, typer.Argument(help="The index: a new folder, or that of an interrupted build.")],
    model: Model = "default",
    precision: Annotated[str, typer.Option(help="Of the stored tokens: int8, float16 or float32.")] = "int8",
    skip_empty: Annotated[bool, typer.Option("--skip-empty", help="Leave out documents without text.")] = False,
    device: Device = None,
    offline: Offline = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No estimate and no progress bar.")] = False,
) -> None:
    """Encode every document of a corpus once. Interrupted, the same command goes on where it stopped."""
    from ..index import TokenIndex

    documents = open_documents(corpus)
    try:
        index = TokenIndex.build(
            documents,
            load_model(model, device, offline=offline),
            folder,
            precision=precision,
            corpus=corpus,
            skip_empty=skip_empty,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted: run the same command again to go on; what {folder} holds is safe", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{folder}: {len(index):,} documents, {index.info().bytes / 1e6:,.1f} MB", err=True)


@app.command("info")
def info(
    folder: Annotated[Path, typer.Argument(help="The index.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Size, shape and identity of an index."""
    from ..index import TokenIndex

    found = TokenIndex(folder).info()
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    manifest = found.manifest
    rows = {
        "documents": f"{found.documents:,}",
        "size": f"{found.bytes / 1e6:,.1f} MB, {found.bytes_per_document:,.0f} bytes a document",
        "tokens": f"{manifest.tokens} a document, {manifest.dim} dimensions, {manifest.precision}",
        "item encoder": f"{manifest.fingerprint} ({manifest.model})",
        "corpus": manifest.corpus,
    }
    for name, value in rows.items():
        typer.echo(f"{name:<13} {value}")
