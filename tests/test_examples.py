"""Programs of docs/examples that no other test runs: they run, and find what they look for."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from sentence_transformers import MultiVectorEncoder, SentenceTransformer


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "docs" / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_several_corpora_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        with gzip.open(folder / "corpus.jsonl.gz", "wt") as corpus:
            corpus.write(json.dumps({"_id": "d1", "title": "", "text": f"a text of {name}"}) + "\n")
        queries = [{"_id": f"q{number}", "text": f"query\t{number}"} for number in range(4)]
        (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
        (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td1\t1\nq1\td2\t1\n")
    module = example("several_corpora")
    monkeypatch.setattr(module, "NAMES", ["one", "two"])
    module.join(tmp_path, tmp_path / "both")
    with gzip.open(tmp_path / "both" / "corpus.jsonl.gz", "rt") as corpus:
        documents = [json.loads(line) for line in corpus]
    assert [(each["_id"], each["text"]) for each in documents] == [
        ("one-d1", "a text of one"),
        ("two-d1", "a text of two"),
    ]
    asked = [line.split("\t") for line in (tmp_path / "both" / "queries.tsv").read_text().splitlines()]
    assert sorted(asked) == [[f"{name}-q{n}", f"query {n}"] for name in ("one", "two") for n in (1, 2)]


def test_late_interaction_reads_the_bi_encoders_own_states(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source, folder = str(checkpoint("bert")), str(tmp_path / "late")
    example("late_interaction").convert(source, folder)
    text = "dogs bark at the moon"
    (found,) = MultiVectorEncoder(folder).encode_document([text])
    states = SentenceTransformer(source).encode([text], output_value="token_embeddings")[0]
    states = (states / states.norm(dim=1, keepdim=True)).numpy()
    assert len(found) == len(states)
    assert abs(found - states).max() < 1e-5


@pytest.fixture
def memories() -> ModuleType:
    return example("memories")


def test_memories_are_kept_and_recalled(memories: ModuleType, tmp_path: Path) -> None:
    model = memories.MixLM.from_pretrained("default", device="cpu")
    texts = ["The dog's name is Rex.", "We had tea at noon; the tea was cold.", "Rex is afraid of the mail man."]
    kept = memories.Memories(tmp_path, model)
    kept.add(texts[:2])
    kept.add(texts[2:])
    again = memories.Memories(tmp_path, model)  # another process, later
    assert [again.text(memory) for memory in again.recall("what is Rex's fear?", 1)] == [texts[2]]
    assert again.recall("zebra") == again.recall("?!") == []


def test_an_interrupted_memory_is_added_again(memories: ModuleType, tmp_path: Path) -> None:
    model = memories.MixLM.from_pretrained("default", device="cpu")
    kept = memories.Memories(tmp_path, model)
    kept.add(["The dog's name is Rex."])
    kept.texts.execute("DELETE FROM memories")  # what SQLite forgets, and the token index does not
    kept.add(["The tea was cold."])
    assert [kept.text(memory) for memory in kept.recall("how was the tea?")] == ["The tea was cold."]


def test_the_page_of_memories_runs(memories: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memories.main(str(tmp_path), "split a string at every comma", count=20)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("20 memories added") and "20 memories ranked" in said[1]


def test_digits_are_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way; how well it ranks after so little training is not asked."""
    found = example("digits").main(str(tmp_path), learned=1700, wordings=1, rounds=1)
    assert json.loads((tmp_path / "digits.json").read_text()) == found and list(found) == ["before", "after"]
    assert "after: 97 images, nDCG@10" in capsys.readouterr().out


def test_the_teacher_of_digits_by_hand() -> None:
    captions = ["a handwritten seven", "a handwritten eight", "a handwritten one"]
    scores = example("digits").Labels().score_batch(["find every seven", "show me a even number"], [captions] * 2)
    assert [own.tolist() for own in scores] == [[5.0, -5.0, -5.0], [-5.0, 5.0, -5.0]]
