"""The examples of the documentation run, and find what they look for."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("memories", EXAMPLES / "memories.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
