"""``mixlm-rerank demo``: the whole pipeline once, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    output: Annotated[Path, typer.Option(help="Folder for indexes, runs and results.")] = Path("mixlm-demo"),
) -> None:
    """Compare BM25 and MixLM on 66 questions about Python's standard library. Takes about three minutes."""
    from ..demo.run import run_demo

    run_demo(output, typer.echo)
