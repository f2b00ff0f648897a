"""No test query is trained on, or chosen by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.training.recipe import load_recipe
from mixlm_rerank.training.run import run_recipe
from mixlm_rerank.training.sources import plain, without_queries


def test_queries_that_a_test_or_development_set_has_too_are_left_out_and_reported(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    """The test split has the dev split's queries and more."""
    whole, few = {"source": str(beir), "split": "test"}, {"source": str(beir), "split": "dev"}
    for role, run in (("never", tmp_path / "a"), ("development", tmp_path / "b")):
        run_recipe(load_recipe(recipe(collections=[whole], **{role: [few]})), run, progress=False)
        (pools,) = (run / "pools-100").glob("*.jsonl")
        trained = [json.loads(line)["qid"] for line in pools.read_text().splitlines()]
        assert trained and not {"q1", "q2", "q3"} & set(trained)
        assert json.loads((run / "overlaps.json").read_text()) == {
            "tiny": {"q1": "tiny dev", "q2": "tiny dev", "q3": "tiny dev"}
        }
    for parts in ({"collections": [few], "never": [whole]}, {"development": [few], "never": [whole]}):
        with pytest.raises(InputError, match="every query of tiny dev is also one of tiny"):
            run_recipe(load_recipe(recipe(**parts), {"data": str(beir)}), tmp_path / "c", progress=False)


def test_collections_of_one_name_are_all_kept_from_training(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    never = []
    for place, qid in (("a", "q1"), ("b", "q2")):
        shutil.copytree(beir, tmp_path / place / "tiny")
        (tmp_path / place / "tiny" / "qrels" / "one.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qid}\td1\t1\n")
        never.append({"source": str(tmp_path / place / "tiny"), "split": "one"})
    run = tmp_path / "run"
    whole = {"source": str(beir), "split": "test"}
    run_recipe(load_recipe(recipe(collections=[whole], never=never)), run, progress=False)
    assert json.loads((run / "overlaps.json").read_text()) == {"tiny": {"q1": "tiny one", "q2": "tiny one"}}


def test_equal_queries_are_equal_in_letters_and_digits() -> None:
    qrels = {"1": {"d": 1}, "2": {"d": 1}}
    collection = Collection("a", None, {"1": "What is it?", "2": "who"}, qrels)
    same, found = without_queries(collection, {plain("what is that"): "t"})
    assert (same, found) == (collection, {})
    left, found = without_queries(collection, {plain("what is  IT"): "t"})
    assert (left.queries, left.qrels, found) == ({"2": "who"}, {"2": {"d": 1}}, {"1": "t"})
