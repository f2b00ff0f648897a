"""Several processes: one training under ``torchrun``, as on several GPUs (here on the CPU), and runs side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mixlm_rerank import MixLM
from mixlm_rerank.training.folder import locked
from mixlm_rerank.training.recipe import load_recipe
from mixlm_rerank.training.run import run_recipe

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture(scope="module")
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


# The commands of the arguments, one after the other: two processes that need long to start do them all.
PROGRAM = """
import shlex, sys
from mixlm_rerank.cli import main
for line in sys.argv[1:]:
    sys.argv = ["mixlm-rerank", *shlex.split(line)]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def torchrun(*lines: str) -> None:
    """These commands by two processes, on the CPU. Ends them both, whatever comes."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    alone = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *several, sys.executable, "-c", PROGRAM, *lines]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=alone, start_new_session=True)
    try:
        _, errors = process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def two_queries(place: Path) -> dict[str, Any]:
    """A collection of two queries, which have no candidate in common."""
    folder, words = place / "two", "dog cat moon bread mail rock earth water salt yeast flour man".split()
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{n}", "text": f"{word} sleeps {words[n - 3]}"} for n, word in enumerate(words)]
    queries = [{"_id": "q0", "text": "dog sleeps"}, {"_id": "q1", "text": "man barks"}]
    for name, rows in (("corpus.jsonl", documents), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td11\t1\n")
    lines = [f"q{n // 6} Q0 d{n} {n % 6 + 1} {9 - n % 6} x\n" for n in range(12)]
    (folder / "run.trec").write_text("".join(lines))
    return {"source": str(folder), "first_stages": [f"run:{folder / 'run.trec'}"]}


@pytest.fixture(scope="module")
def of_two_queries(two_queries: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return values | {"collections": [two_queries], "candidates": 100}


@pytest.fixture(scope="module")
def together(
    of_two_queries: dict[str, Any],
    beir: Path,
    values: dict[str, Any],
    cross_encoder: Callable[..., Path],
    place: Path,
) -> Path:
    """A folder with the runs of two processes: ``both`` and ``stages``, two recipes, and ``distilled``."""
    stages = {
        "collections": [{"source": str(beir), "split": "test"}],
        "development": [{"source": str(beir), "split": "dev"}],
        "cross_encoder": {"start": values["model"]["ranker"], "steps": 4, "queries": 1, "candidates": 3},
        "teacher": {"members": {"max-sim": 27, "bm25": 1.5, "cross-encoder:{run}/cross-encoder/model": 1}},
        "steps": 4,
        "queries": 3,
        "candidates": 3,
        # of three queries: in two passes, whose gradients the processes exchange once
        "joint": {**values["joint"], "queries_at_once": 2},
        "ranker": {"steps": 4, "queries": 1, "candidates": 3, "save_every": 2},
    }
    options = {"rounds": 2, "ranker_rounds": 1, "candidates": 4, "group": 2}
    for name, recipe in {
        "both": {**of_two_queries, "queries": 1, "steps": 12},
        "stages": values | stages,
        "distilled": {"options": options, "joint": {"budgets": [4]}},
    }.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    model = values["model"]
    MixLM.from_backbones(model["item_encoder"], model["ranker"], **model["options"]).save_pretrained(place / "start")
    words = "dog cat moon bread mail rock earth water salt".split()
    documents = [{"_id": str(n), "text": f"{words[n % 9]} and {words[n // 9]} sleep. Nobody barks."} for n in range(81)]
    (place / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    torchrun(
        *(f"train {place}/{name}.yaml --output {place}/{name} --quiet" for name in ("both", "stages")),
        f"distill {place}/corpus.jsonl --teacher {cross_encoder()} --model {place}/start "
        f"--config {place}/distilled.yaml --output {place}/distilled --quiet",
    )
    return place


def test_two_processes_train_the_model_that_one_trains_with_twice_the_queries(
    together: Path, of_two_queries: dict[str, Any], tmp_path: Path
) -> None:
    """Each of them reads one of the two queries, and their gradients are averaged."""
    path, models = tmp_path / "recipe.yaml", []
    for queries in (2, 1):
        path.write_text(yaml.safe_dump(of_two_queries | {"queries": queries, "steps": 6}))
        models.append(run_recipe(load_recipe(path, {}), tmp_path / f"alone {queries}", progress=False))
    history = json.loads((together / "both" / "joint" / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "listwise" in row] == [1, 2, 3, 4, 5, 6]
    one, half, two = (MixLM.from_pretrained(model).state_dict() for model in (*models, together / "both" / "model"))
    compared = {name for name in one if one[name].ndim > 1 and not torch.equal(one[name], half[name])}
    assert len(compared) > 20  # (some biases have no gradient but rounding errors)
    for name in compared:
        assert (one[name] - two[name]).norm() < 0.02 * (one[name] - half[name]).norm(), name


def test_two_processes_train_a_teacher_and_the_ranker_alone(together: Path) -> None:
    run = together / "stages"
    assert (run / "cross-encoder" / "model" / "config.json").is_file()
    for part in ("joint", "ranker"):
        log = json.loads((run / part / "trainer_state.json").read_text())["log_history"]
        assert [row["step"] for row in log if "eval_k=4" in row] == [0, 2]
    assert MixLM.from_pretrained(run / "model").config.tokens == 4


def test_two_processes_distill(together: Path) -> None:
    run = together / "distilled"
    assert set(json.loads((run / "fidelity.json").read_text())) == {"start k=4", "k=4"}
    assert MixLM.from_pretrained(run / "model").config.tokens == 4


def test_whoever_comes_second_waits_and_a_killed_process_lets_go(tmp_path: Path) -> None:
    order, (ready, say) = tmp_path / "order.txt", os.pipe()

    def child(work: Callable[[], object]) -> int:
        process = os.fork()
        if process:
            return process
        try:
            with locked(tmp_path / "shared"):
                work()
        finally:
            os._exit(0)

    first = child(lambda: (os.write(say, b"."), signal.pause()))
    os.close(say)
    os.read(ready, 1)
    second = child(lambda: order.write_text("the second works"))
    try:
        time.sleep(0.2)
        assert not order.exists() and os.waitpid(second, os.WNOHANG) == (0, 0)
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        os.waitpid(second, 0)
    assert order.read_text() == "the second works"
