"""One thing changed at a time, by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.training.ablations import Ablations, ablate, load_ablations
from mixlm_rerank.training.recipe import merged, read_yaml, recipe_of


@pytest.fixture
def base(beir: Path, checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    folder = str(checkpoint("bert", hidden_dropout_prob=0.0))
    options = {"tokens": 4, "max_query_tokens": 64, "max_document_tokens": 40}
    values: dict[str, Any] = {
        "model": {"item_encoder": folder, "ranker": folder, "options": options},
        "collections": [{"source": str(beir), "split": "test"}],
        "development": [{"source": str(beir), "split": "dev"}],
        "joint": {"budgets": [1, 4], "save_every": 2},
        "steps": 4,
        "queries": 2,
        "candidates": 3,
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_variants_are_run_valued_and_drawn(base: Path, tmp_path: Path) -> None:
    config = tmp_path / "ablations.yaml"
    changes = {
        "frozen": {"joint": {"learning_rates": [0, 1e-3, 1e-3]}},
        "no residual": {"model": {"options": {"residual": "none"}}},
    }
    always = {"steps": 2, "joint": {"measure_start": False}}
    config.write_text(yaml.safe_dump({"base": str(base), "always": always, "variants": changes}))
    output = tmp_path / "out"
    command = ["ablate", "--config", str(config), "--output", str(output), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads((output / "ablations.json").read_text())
    assert list(found) == ["the recipe", "frozen", "no residual"]
    log = json.loads((output / "no-residual" / "joint" / "trainer_state.json").read_text())["log_history"]
    rows = {row["step"]: row["eval_k=4"] for row in log if "eval_k=4" in row}
    assert rows == {2: found["no residual"]["k=4"]} and f"{rows[2]:.4f}" in done.output
    assert (output / "ablations.png").stat().st_size > 5000
    assert len(list((output / "shared").glob("pools-100/*.jsonl"))) == 1
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0 and json.loads((output / "ablations.json").read_text()) == found


def test_changes_that_give_no_recipe_are_named(base: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"stepz": 3}, "with 'odd' is not a recipe: stepz"),
        ({"steps": {"more": 3}}, "with 'odd' is not a recipe: steps: "),
        ({"development": []}, "names no development sets"),
    ):
        asked = Ablations(str(base), {"odd": changes})
        with pytest.raises(InputError, match=message):
            ablate(asked, base, tmp_path / "out", {}, progress=False)


def test_the_shipped_ones_fit_the_shipped_recipe() -> None:
    recipes = files("mixlm_rerank.training") / "recipes"
    asked = load_ablations(Path(str(recipes / "ablate" / "default.yaml")))
    values = read_yaml(Path(str(recipes / "train" / f"{asked.base}.yaml")))
    for changes in asked.variants.values():
        recipe_of(merged(merged(values, asked.always), changes), {"data": "d", "minilm": "m"}, "x")
