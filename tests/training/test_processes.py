"""Several processes: one training under ``torchrun``, as on several GPUs (here on the CPU), and runs side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mixlm_rerank import MixLM
from mixlm_rerank.training.processes import one_at_a_time
from mixlm_rerank.training.recipe import load_recipe
from mixlm_rerank.training.run import run_recipe


@pytest.fixture
def values(checkpoint: Callable[..., Path]) -> dict[str, Any]:
    """Of a recipe: what the tests have in common."""
    folder = str(checkpoint("bert", hidden_dropout_prob=0.0))
    return {
        "model": {
            "item_encoder": folder,
            "ranker": folder,
            "options": {"tokens": 4, "max_query_tokens": 64, "max_document_tokens": 40},
        },
        "joint": {"budgets": [1, 4], "save_every": 3, "log_every": 1},
    }


def torchrun(*arguments: str) -> None:
    """The command by two processes."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    ours = [sys.executable, "-c", "from mixlm_rerank.cli import main; main()"]
    done = subprocess.run(
        [sys.executable, *several, *ours, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
def test_two_processes_train_the_model_that_one_trains_with_their_mean(
    beir: Path, values: dict[str, Any], tmp_path: Path
) -> None:
    """Of one query, all batches are the same: so are the gradients of both processes, and their mean."""
    values |= {"collections": [{"source": str(beir), "split": "dev", "queries": 1}], "queries": 1, "candidates": 100}
    path, one, two = tmp_path / "recipe.yaml", tmp_path / "one", tmp_path / "two"
    path.write_text(yaml.safe_dump(values | {"steps": 6}))
    run_recipe(load_recipe(path, {}), one, progress=False)
    path.write_text(yaml.safe_dump(values | {"steps": 12}))
    torchrun("train", str(path), "--output", str(two), "--quiet")
    assert sorted(made.name for made in (two / "joint").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    ours, theirs = (MixLM.from_pretrained(run / "model").state_dict() for run in (one, two))
    model = values["model"]
    start = MixLM.from_backbones(model["item_encoder"], model["ranker"], **model["options"]).state_dict()
    moved = {name for name in ours if not torch.equal(ours[name], start[name]) and ours[name].ndim > 1}
    assert len(moved) > 20  # (some biases have no gradient but rounding errors)
    for name in moved:
        assert torch.allclose(ours[name], theirs[name], atol=1e-5), name


@pytest.mark.timeout(300)
def test_two_processes_go_through_every_stage_of_a_recipe(beir: Path, values: dict[str, Any], tmp_path: Path) -> None:
    values |= {
        "collections": [{"source": str(beir), "split": "test"}],
        "development": [{"source": str(beir), "split": "dev"}],
        "cross_encoder": {"start": values["model"]["ranker"], "steps": 4, "queries": 1, "candidates": 3},
        "teacher": {"cross_encoder": "{run}/cross-encoder/model"},
        "steps": 4,
        "queries": 1,
        "candidates": 3,
        "ranker": {"steps": 4, "queries": 1, "candidates": 3, "save_every": 2},
    }
    path, run = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(values))
    torchrun("train", str(path), "--output", str(run), "--quiet")
    assert (run / "cross-encoder" / "model" / "config.json").is_file()
    for part in ("joint", "ranker"):
        assert list(json.loads((run / part / "development.json").read_text())) == ["0", "2"]
    assert MixLM.from_pretrained(run / "model").config.tokens == 4


@pytest.mark.timeout(300)
def test_two_processes_distil(values: dict[str, Any], cross_encoder: Callable[..., Path], tmp_path: Path) -> None:
    model = values["model"]
    MixLM.from_backbones(model["item_encoder"], model["ranker"], **model["options"]).save_pretrained(tmp_path / "start")
    config, run = tmp_path / "distil.yaml", tmp_path / "run"
    options = {"rounds": 2, "ranker_rounds": 1, "candidates": 4, "group": 2}
    config.write_text(yaml.safe_dump({"options": options, "joint": {"budgets": [4]}}))
    corpus, words = tmp_path / "corpus.jsonl", "dog cat moon bread mail rock earth water salt".split()
    documents = [{"_id": str(n), "text": f"{words[n % 9]} and {words[n // 9]} sleep. Nobody barks."} for n in range(81)]
    corpus.write_text("".join(json.dumps(document) + "\n" for document in documents))
    torchrun("distill", str(corpus), "--teacher", str(cross_encoder()), "--model", str(tmp_path / "start"),
             "--config", str(config), "--output", str(run), "--quiet")  # fmt: skip
    assert set(json.loads((run / "fidelity.json").read_text())) == {"start k=4", "k=4"}
    assert MixLM.from_pretrained(run / "model").config.tokens == 4


def test_whoever_comes_second_waits_and_a_killed_process_lets_go(tmp_path: Path) -> None:
    order = tmp_path / "order.txt"
    ready, say = os.pipe()
    first = os.fork()
    if not first:
        with one_at_a_time(tmp_path / "shared"):
            os.write(say, b".")
            signal.pause()
    os.read(ready, 1)
    second = os.fork()
    if not second:
        with one_at_a_time(tmp_path / "shared"):
            order.write_text("the second works")
        os._exit(0)
    time.sleep(0.5)
    assert not order.exists() and os.waitpid(second, os.WNOHANG) == (0, 0)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert os.waitpid(second, 0)[1] == 0
    assert order.read_text() == "the second works"
