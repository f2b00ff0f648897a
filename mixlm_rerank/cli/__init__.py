"""The command line, one file a command. What is wrong with the input is said in one line, with exit code 2."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from ..errors import MixLMError
from . import bench, bm25, demo, evaluate, index, model, rerank, search, serve, train

__all__ = ["app", "main"]

app = typer.Typer(
    name="mixlm-rerank",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("mixlm-rerank"))
        raise typer.Exit


@app.callback()
def _main(
    show: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Rerank with documents as a few precomputed embedding tokens (MixLM)."""


app.add_typer(model.app, name="model")
app.add_typer(index.app, name="index")
app.add_typer(bm25.app, name="bm25")
app.command("rerank")(rerank.rerank)
app.command("search")(search.search)
app.command("serve")(serve.serve)
app.add_typer(evaluate.app, name="eval")
app.add_typer(bench.app, name="bench")
app.command("train")(train.train)
app.command("distill")(train.distill)
app.command("ablate")(train.ablate)
app.command("demo")(demo.demo)


def main() -> None:
    """Entry point of the ``mixlm-rerank`` script."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
            warnings.filterwarnings("ignore", message="none of the candidates")  # check_scored makes an error of it
            app()
    except (MixLMError, OSError) as error:  # OSError: a folder that cannot be made or read, a full disk
        message = " ".join(str(error).split())  # those of other libraries may have several lines
        typer.echo(f"error: {message}", err=True)
        sys.exit(2)
