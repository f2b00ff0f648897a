"""Recipes: what can be read, what extends another, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.distill import DistillRecipe
from mixlm_rerank.training.recipe import Recipe, load_recipe, read_yaml
from mixlm_rerank.training.run import run_recipe


def test_a_recipe_may_extend_one_of_the_package(tmp_path: Path) -> None:
    shipped = files("mixlm_rerank.training") / "recipes" / "train"
    for name in ("default", "qwen3-0.6b"):
        (tmp_path / "mine.yaml").write_text(f"extends: train/{name}\nseed: 5\n")
        assert read_yaml(tmp_path / "mine.yaml") == read_yaml(Path(str(shipped / f"{name}.yaml"))) | {"seed": 5}


def test_shipped_recipes_can_be_read() -> None:
    places = {"data": "d", "run": "r", "minilm": "m"}
    shipped = files("mixlm_rerank.training") / "recipes"
    names = {
        kind: {Path(str(one)).stem for one in (shipped / kind).iterdir() if load_recipe(str(one), places, recipe)}
        for kind, recipe in (("train", Recipe), ("distill", DistillRecipe))
    }
    assert names == {
        "train": {"cross-encoder", "cross-encoder-cpu", "default", "qwen3-0.6b"},
        "distill": {"cut", "cut-fixed", "cut-gpu", "default", "default-gpu"},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepss": 3}, r"recipe\.yaml is not a recipe: stepss: Unexpected keyword"),
        ({"steps": "many"}, r"is not a recipe: steps: Input should be a valid integer"),
        ({"joint": {"phases": [{"listwize": 1}]}}, r"is not a recipe: joint\.phases\.0\.listwize: Unexpected keyword"),
        ({"collections": [{"source": "{nothing"}]}, "nothing"),
        ({"joint": {"queries_at_once": -1}}, "joint.queries_at_once: Input should be greater than or equal to 1"),
        ({"joint": {"phases": [{"listwise": 0}]}}, "weights of a phase's losses must not be negative, nor all 0"),
        ({"teacher": {"members": {"bm25": 0}, "labels": 0}}, "nothing says which candidates are better"),
        (
            {"joint": {"phases": [{"cosine": 1}]}, "ranker": {}},
            "is not a recipe: .*the ranker has no loss to train alone by",
        ),
        ({"collections": []}, "nothing to train on"),
        ({"model": {}}, "needs start .* or item_encoder and ranker"),
        ({"joint": {"budgets": [9]}}, "between 1 and 4"),
        ({"joint": {"budgets": []}}, "at least one token budget and one phase"),
        ({"joint": {"learning_rates": [0, 0, 0]}}, "must not be negative, nor all 0"),
        ({"steps": 0}, "is not a recipe: .*0 steps and no cross_encoder: there is nothing to train"),
        ({"collections": [{"source": "x", "run": "y"}]}, r"0\.run: Unexpected .*version 0.2 it is first_stages"),
        ({"teacher": {"hybrid": {"bm25": 1}}}, r"teacher\.hybrid: Unexpected .*version 0.2 it is members"),
        ({"joint": {"phases": [{"distil": 1}]}}, r"phases\.0\.distil: Unexpected .*version 0.2 it is distill"),
        ({"collections": [{"source": "x", "first_stages": []}]}, "first_stages: .* at least 1 item"),
        ({"development": [{"source": "x", "first_stages": ["bm25", "dense:y"]}]}, "x: a development set has one first"),
        ({"queries": 0}, "is not a recipe: queries: Input should be greater than or equal to 1"),
        ({"teacher": {"cross_encoding": "x"}}, "is not a recipe: teacher.cross_encoding: Unexpected keyword"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_told_in_one_line(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    with pytest.raises(InputError, match=message):
        run_recipe(load_recipe(recipe(**changes), {"data": str(beir)}), tmp_path / "run", progress=False)


def test_a_recipe_that_extends_itself_or_nothing(recipe: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"recipe\.yaml extends itself"):
        load_recipe(recipe(extends="recipe.yaml"))
    path = recipe(steps=7, joint={"budgets": [1, 4], "save_every": 2})
    own = path.with_name("own.yaml")
    own.write_text("{extends: recipe.yaml, joint: {save_every: 5}, collections: []}")
    found = load_recipe(own, {"data": "d"})
    assert (found.steps, found.joint.save_every, list(found.joint.budgets)) == (7, 5, [1, 4])
    assert found.collections == []
    path = recipe(extends="b.yaml")
    path.with_name("b.yaml").write_text("extends: recipe.yaml")
    with pytest.raises(InputError, match=r"b\.yaml extends itself"):
        load_recipe(path)
    with pytest.raises(InputError, match="no recipe at .*other"):
        load_recipe(recipe(extends="other"))


def test_places_that_are_not_filled_in_are_named(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"asks for '\{data\}': say where the collections are \(--data FOLDER\)"):
        load_recipe(recipe())
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        load_recipe(tmp_path / "broken.yaml")
