"""A bi-encoder learns the embeddings of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from mixlm_rerank import MixLM
from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import open_collection
from mixlm_rerank.training.embeddings import Texts, joint_embeddings, teacher_embeddings, texts_of


def unit(shape: tuple[int, int], seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_joint_embeddings_have_the_weighted_sum_of_centred_cosines() -> None:
    first, second, own = unit((50, 6), 0), unit((50, 9), 1), unit((50, 16), 2)
    found = joint_embeddings([first, second], [2.0, 5.0], own)
    centred = [one - one.mean(axis=0) for one in (first, second)]
    sums = 2.0 * centred[0] @ centred[0].T + 5.0 * centred[1] @ centred[1].T
    lengths = np.sqrt(np.diag(sums))
    assert np.allclose(found @ found.T, sums / lengths[:, None] / lengths, atol=1e-4)
    nearest = np.linalg.svd(found.T @ own, compute_uv=False).sum()  # of all rotations
    assert (found * own).sum() == pytest.approx(nearest, rel=1e-3)


def test_more_numbers_than_the_student_has_are_reduced_to_the_main_ones() -> None:
    few = unit((80, 4), 0)
    wide = np.concatenate([few, 0.01 * unit((80, 12), 1)], axis=1)
    found = joint_embeddings([wide], [1.0], unit((80, 4), 2))
    centred = few - few.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert found.shape == (80, 4) and np.allclose(found @ found.T, centred @ centred.T, atol=0.05)


def test_the_item_encoder_of_a_recipe_comes_near_its_teachers(
    recipe: Callable[..., Path], checkpoint: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    start, teacher = str(checkpoint("bert", hidden_dropout_prob=0.0)), str(checkpoint("bert", seed=1, hidden_size=48))
    run = tmp_path / "run"
    part = {"start": start, "teachers": {teacher: 1.0}, "epochs": 30, "batch": 4, "learning_rate": 2e-3}
    options = {"tokens": 4, "max_query_tokens": 64, "max_document_tokens": 40}
    model = {"item_encoder": "{run}/embeddings/model", "ranker": start, "options": options}
    path = recipe(embeddings=part, model=model)
    command = ["train", str(path), "--data", str(beir), "--output", str(run), "--quiet"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert MixLM.from_pretrained(run / "model").config.tokens == 4
    kept = list(run.glob("teachers/embeddings/*.npy"))
    assert len(kept) == 2
    texts = texts_of([open_collection(str(beir), "dev")], 1000)
    goal = teacher_embeddings(teacher, texts, tmp_path, 128, progress=False)
    goal = goal - goal.mean(axis=0)
    goal /= np.linalg.norm(goal, axis=1, keepdims=True)
    errors = []
    for source in (start, str(run / "embeddings" / "model")):
        own = teacher_embeddings(source, texts, tmp_path, 128, progress=False)
        errors.append(float(np.abs(own @ own.T - goal @ goal.T).mean()))
    assert errors[1] < errors[0] / 3
    before = [one.stat().st_mtime_ns for one in kept]
    again = ["--output", str(tmp_path / "again"), "--shared", str(run), "--seed", "1"]
    done = CliRunner().invoke(app, [*command, *again])
    assert done.exit_code == 0, done.output
    assert [one.stat().st_mtime_ns for one in kept] == before


def test_embeddings_are_computed_once_and_only_what_is_missing(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = Texts(["a dog", "the moon"], ["bread", "a dog barks", "water"])
    source = str(checkpoint("bert"))
    whole = np.array(teacher_embeddings(source, texts, tmp_path, 64, progress=False))
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-2)
    (path,) = tmp_path.glob("*.npy")
    array = np.load(path, mmap_mode="r+")
    array[1], array[3] = np.nan, np.nan  # as a killed process leaves them
    array.flush()
    asked: list[str] = []
    for name in ("encode_query", "encode_document"):
        encode = getattr(SentenceTransformer, name)

        def counting(self: Any, texts: list[str], encode: Callable[..., Any] = encode, **options: Any) -> Any:
            asked.extend(texts)
            return encode(self, texts, **options)

        monkeypatch.setattr(SentenceTransformer, name, counting)
    again = teacher_embeddings(source, texts, tmp_path, 64, progress=False)
    assert asked == ["the moon", "a dog barks"]
    assert np.allclose(again, whole, atol=1e-2)


def test_what_cannot_become_an_item_encoder_is_refused_before_teachers_read(
    recipe: Callable[..., Path], checkpoint: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    path = recipe(embeddings={"start": str(tmp_path / "none"), "teachers": {str(checkpoint("bert")): 1.0}})
    done = CliRunner().invoke(app, ["train", str(path), "--data", str(beir), "--output", str(tmp_path / "run")])
    assert isinstance(done.exception, InputError) and not list(tmp_path.glob("run/teachers/**/*.npy"))


def test_documents_are_drawn_once_each_and_the_same_for_every_run(beir: Path) -> None:
    collection = open_collection(str(beir), "dev")
    every = {document.content for document in collection.documents("a test")}
    whole, some = texts_of([collection, collection], 1000), texts_of([collection], 3)
    assert sorted(whole.documents) == sorted(every) and len(some.documents) == 3
    assert some == texts_of([collection], 3) and set(some.documents) <= every
