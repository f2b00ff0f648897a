"""Ablations: what each part of a recipe is worth, by runs of the recipe with one change each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from mixlm_rerank.data.lines import write_json
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.systems.ranked import slug
from mixlm_rerank.training.folder import on_main_process
from mixlm_rerank.training.recipe import Places, Recipe, merged, read_yaml, recipe_of
from mixlm_rerank.training.run import run_recipe
from mixlm_rerank.training.stage_trainer import STRICT
from mixlm_rerank.training.trainer import MEASURED

__all__ = ["Ablations", "ablate", "load_ablations", "plot_ablations"]

WHOLE = "the recipe"
RESULTS, PLOT = "ablations.json", "ablations.png"
LOST = 0.9  # share of the whole recipe's value; values below it are not drawn to scale


@dataclass(frozen=True, config=STRICT)
class Ablations:
    """A recipe and its variants. A variant lists only what differs from the recipe, as with ``extends``."""

    base: str  # the recipe, a file or a name
    variants: dict[str, dict[str, Any]]  # name -> changes
    always: dict[str, Any] = field(default_factory=dict)  # changes for every run, such as fewer steps


def load_ablations(path: Path) -> Ablations:
    """Read a YAML file; placeholders like ``{data}`` are filled in per variant later. Raises InputError if invalid."""
    return recipe_of(read_yaml(path), None, str(path), Ablations)


def ablate(
    ablations: Ablations,
    base: Path,
    folder: str | Path,
    places: Places,
    *,
    offline: bool = False,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """Run the recipe and every variant. Resumable: finished runs are not repeated.

    Args:
        base: the file that ``ablations.base`` stands for.
        places: see :func:`recipe_of`; ``run`` is each variant's own folder.

    Returns:
        variant -> its final development values. They are also saved in ablations.json and drawn in ablations.png.

    Raises:
        InputError: no development sets, or a change that makes the recipe invalid.
    """
    folder = Path(folder)
    values = read_yaml(base)
    recipes: dict[str, tuple[Path, Recipe]] = {}
    for name, changes in {WHOLE: {}, **ablations.variants}.items():
        run = folder / slug(name)
        changed = merged(merged(values, ablations.always), changes)
        recipes[name] = (run, recipe_of(changed, {**places, "run": str(run)}, f"{base} with {name!r}"))
    if not all(recipe.development for _, recipe in recipes.values()):
        raise InputError(f"{base} names no development sets: there is nothing to value the runs by")
    found = {}
    for name, (run, recipe) in recipes.items():
        run_recipe(recipe, run, shared=folder / "shared", offline=offline, progress=progress)
        last = "joint" if recipe.ranker is None else "ranker"
        log = json.loads((run / last / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        values_of = [row for row in log if any(key.startswith(MEASURED) for key in row)][-1]
        found[name] = {key.removeprefix(MEASURED): values_of[key] for key in values_of if key.startswith(MEASURED)}
        on_main_process(partial(write_json, folder / RESULTS, found))
        on_main_process(partial(plot_ablations, found, folder / PLOT))
    return found


def plot_ablations(found: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Plot one row per variant and one mark per token budget: means over the development sets. Values more than a tenth
    below the recipe's are written at the edge, so that the others can be told apart.
    """
    with optional_import("the plot needs matplotlib", "train"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 0.45 * len(found) + 1.4), layout="constrained")
    axes = figure.subplots()
    names = list(found)
    columns = [name for name in found[names[0]] if name == "cosine" or name.startswith("k=")]
    edge = LOST * min(found[names[0]][column] for column in columns)
    for column in columns:
        inside = [found[name][column] if found[name][column] >= edge else math.nan for name in names]
        axes.plot(inside, range(len(names)), "o", label=column, alpha=0.8)
    for row, name in enumerate(names):
        lost = [f"{column} {found[name][column]:.3f}" for column in columns if found[name][column] < edge]
        if lost:
            axes.text(
                0.01, row, f"\u2190 {', '.join(lost)}", va="center", fontsize=8, transform=axes.get_yaxis_transform()
            )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("nDCG@10, mean over development sets")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=len(columns), loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, dpi=120)
