"""A recipe carried out on a tiny collection, by the command; what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mixlm_rerank import MixLM
from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.training.guard import refuse_queries
from mixlm_rerank.training.recipe import load_recipe
from mixlm_rerank.training.run import run_recipe


@pytest.fixture
def recipe(beir: Path, checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """``recipe(steps=3)``: the file of a recipe that trains on the tiny collection's dev split."""
    folder = str(checkpoint("bert", hidden_dropout_prob=0.0))

    def write(**changes: Any) -> Path:
        values: dict[str, Any] = {
            "model": {
                "item_encoder": folder,
                "ranker": folder,
                "options": {"tokens": 4, "max_query_tokens": 64, "max_document_tokens": 40},
            },
            "collections": [{"source": "{data}", "split": "dev"}],
            "joint": {"budgets": [1, 4], "save_every": 2, "log_every": 1},
            "steps": 4,
            "queries": 2,
            "candidates": 3,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    return write


def test_a_recipe_gives_a_model_that_ranks_and_a_history(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    path = recipe()
    done = CliRunner().invoke(app, ["train", str(path), "--data", str(beir), "--output", str(run), "--quiet"])
    assert done.exit_code == 0, done.output
    made = yaml.safe_load(path.read_text())["model"]
    start = MixLM.from_backbones(made["item_encoder"], made["ranker"], **made["options"])
    assert MixLM.from_pretrained(run / "model").fingerprint != start.fingerprint
    history = json.loads((run / "joint" / "history.json").read_text())
    assert [row["step"] for row in history if "listwise" in row] == [1, 2, 3, 4]
    before = (run / "pools" / "tiny-dev.jsonl").stat().st_mtime_ns
    run_recipe(load_recipe(path, {"data": str(beir)}), run, progress=False)  # again: nothing is left to do
    assert (run / "pools" / "tiny-dev.jsonl").stat().st_mtime_ns == before


def test_queries_of_a_test_are_refused(recipe: Callable[..., Path], beir: Path, tmp_path: Path) -> None:
    for role in ("never", "development"):
        path = recipe(**{role: [{"source": str(beir), "split": "test"}]})
        with pytest.raises(
            InputError, match=r"3 queries, .* of tiny dev for one, are queries of tiny too: take them out"
        ):
            run_recipe(load_recipe(path, {"data": str(beir)}), tmp_path / "run", progress=False)
        shutil.rmtree(tmp_path / "run")
    refuse_queries([("a", "What is it?")], {"t": ["what is that"]})
    with pytest.raises(InputError, match="1 queries, .* of a for one, are queries of t"):
        refuse_queries([("a", "What is it?")], {"t": ["what is  IT"]})


def test_queries_of_a_test_are_not_chosen_by_either(recipe: Callable[..., Path], beir: Path, tmp_path: Path) -> None:
    part = [{"source": str(beir), "split": "test"}]
    path = recipe(collections=[{"source": str(beir), "split": "dev"}], development=part, never=part)
    values = yaml.safe_load(path.read_text())
    values["collections"][0]["queries"] = 1
    with pytest.raises(InputError, match="are queries of tiny too"):
        run_recipe(load_recipe(path), tmp_path / "run", progress=False)


def test_a_folder_is_gone_on_with_by_the_same_recipe_alone(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    places = {"data": str(beir)}
    run_recipe(load_recipe(recipe(), places), tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="was begun with another recipe: choose another folder"):
        run_recipe(load_recipe(recipe(steps=5), places), tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepss": 3}, r"recipe\.yaml is not a recipe: stepss: Unexpected keyword"),
        ({"steps": "many"}, r"is not a recipe: steps: Input should be a valid integer"),
        ({"joint": {"phases": [{"listwize": 1}]}}, r"is not a recipe: joint\.phases\.0\.listwize: Unexpected keyword"),
        ({"collections": [{"source": "{nothing"}]}, None),
        ({"collections": []}, "nothing to train on"),
        ({"model": {}}, "needs start .* or item_encoder and ranker"),
        ({"joint": {"budgets": [9]}}, "tokens must lie between 1 and 4"),
        ({"joint": {"budgets": []}}, "at least one token budget and one phase"),
        ({"queries": 0}, "is not a recipe: queries: Input should be greater than or equal to 1"),
        ({"teacher": {"cross_encoder": "x"}}, "is not a recipe: teacher.cross_encoder: Unexpected keyword"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_told_in_one_line(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    with pytest.raises(InputError, match=message):
        run_recipe(load_recipe(recipe(**changes), {"data": str(beir)}), tmp_path / "run", progress=False)


def test_places_that_are_not_filled_in_are_named(recipe: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"asks for '\{data\}': say where the collections are \(--data FOLDER\)"):
        load_recipe(recipe())
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        load_recipe(tmp_path / "broken.yaml")
