"""The command line, one file per command or group of commands. Bad input gives one line on stderr and exit code 2."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from ..errors import MixLMError
from . import bench, bm25, evaluate, index, model, rerank, serve, train

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
    show: Annotated[bool, Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Rerank with documents stored as a few precomputed embedding tokens (MixLM)."""


for _command in (rerank.rerank, rerank.search, serve.serve, train.train, train.distill, train.ablate, model.calibrate):
    app.command()(_command)


@app.command()
def demo(output: Annotated[Path, Option(help="Folder for indexes, runs and results.")] = Path("mixlm-demo")) -> None:
    """Compare BM25 and MixLM on 66 questions about Python's standard library. Takes about three minutes."""
    from ..demo.run import run_demo

    run_demo(output, typer.echo)


GROUPS = {"model": model.app, "index": index.app, "bm25": bm25.app, "eval": evaluate.app, "bench": bench.app}
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def main() -> None:
    """Entry point of the ``mixlm-rerank`` script."""
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_interrupt_again, hook)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
            warnings.filterwarnings("ignore", message="none of the candidates")  # rerank raises an error instead
            app()
    except (MixLMError, OSError) as error:  # OSError: a folder that cannot be made or read, a full disk
        message = " ".join(str(error).split())  # messages of other libraries may have several lines
        typer.echo(f"error: {message}", err=True)
        sys.exit(2)
    finally:
        sys.unraisablehook = hook


def _interrupt_again(hook: Callable[[Any], object], ignored: Any) -> None:
    """Send Ctrl-C again if it was raised in a destructor, where Python prints the exception and continues."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        hook(ignored)
        return
    main_thread = threading.main_thread().ident or 0
    again = threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT))  # now, it would end this function
    again.daemon = True
    again.start()
