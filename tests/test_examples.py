"""The examples of the documentation run, and find what they look for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def opened(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example() -> Any:
    return opened("memories")


def test_memories_are_kept_and_recalled(example: Any, tmp_path: Path) -> None:
    model = example.MixLM.from_pretrained("default", device="cpu")
    texts = ["The dog's name is Rex.", "We had tea at noon; the tea was cold.", "Rex is afraid of the mail man."]
    memories = example.Memories(tmp_path, model)
    memories.add(texts[:2])
    memories.add(texts[2:])
    again = example.Memories(tmp_path, model)  # another process, later
    assert [again.text(memory) for memory in again.recall("what is Rex's fear?", 1)] == [texts[2]]
    assert again.recall("zebra") == again.recall("?!") == []


def test_an_interrupted_memory_is_added_again(example: Any, tmp_path: Path) -> None:
    model = example.MixLM.from_pretrained("default", device="cpu")
    memories = example.Memories(tmp_path, model)
    memories.add(["The dog's name is Rex."])
    memories.texts.execute("DELETE FROM memories")  # what SQLite forgets, and the token index does not
    memories.add(["The tea was cold."])
    assert [memories.text(memory) for memory in memories.recall("how was the tea?")] == ["The tea was cold."]


def test_the_page_of_memories_runs(example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(str(tmp_path), "split a string at every comma", count=20)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("20 memories added") and "20 memories ranked" in said[1]


def test_digits_are_trained_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way; how well it ranks after so little training is not asked."""
    digits = opened("digits")
    found = digits.main(str(tmp_path), learned=1700, wordings=1, rounds=1)
    assert json.loads((tmp_path / "digits.json").read_text()) == found and list(found) == ["before", "after"]
    assert "after: 97 images, nDCG@10" in capsys.readouterr().out


def test_the_teacher_of_digits_by_hand() -> None:
    captions = ["a handwritten seven", "a handwritten eight", "a handwritten one"]
    scores = opened("digits").Labels().score_batch(["find every seven", "show me a even number"], [captions] * 2)
    assert [own.tolist() for own in scores] == [[5.0, -5.0, -5.0], [-5.0, 5.0, -5.0]]
