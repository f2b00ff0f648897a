"""The README's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixlm_rerank import Document

README = Path(__file__).parent.parent / "README.md"


def test_the_pyserini_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], documents: list[Document]
) -> None:
    from mixlm_rerank.integrations.lucene import build_lucene_index

    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    build_lucene_index(documents, "lucene")
    exec(code, {})
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:2] == ["1", "d1"]  # "A dog barks at the moon and at the mail man."


def test_the_commands_of_the_start_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([\w-]+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{command}:", makefile, flags=re.MULTILINE) for command in commands)
