"""``mixlm-rerank demo``: everything once, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option(help="Folder for indexes, runs and results.")] = Path("mixlm-demo"),
) -> None:
    """Ask Python's standard library 66 questions: BM25 against MixLM, quality and speed. About three minutes."""
    from ..demo.run import run_demo

    run_demo(output, typer.echo)
