"""README and the library's page: their examples run as they stand, and what they say of the default model is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import mixlm_rerank
import mixlm_rerank.data
from mixlm_rerank import Document, MixLM
from mixlm_rerank.data import read_run

README = Path(__file__).parent.parent / "README.md"
LIBRARY = README.parent / "docs" / "library.md"


def test_the_first_example_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = README.read_text(encoding="utf-8")
    code, output = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", page, flags=re.DOTALL)[0]
    exec(code, {})
    assert capsys.readouterr().out == output


def test_the_pyserini_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], documents: list[Document]
) -> None:
    from mixlm_rerank.integrations.lucene import build_lucene_index

    _, code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    build_lucene_index(documents, "lucene")
    exec(code, {})
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:2] == ["1", "d1"]  # "A dog barks at the moon and at the mail man."


def test_the_librarys_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[Document]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", LIBRARY.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    rows = [{"_id": document.docid, "text": document.text} for document in documents]
    Path("corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("topics.tsv").write_text("q1\twhat do dogs bark at?\n")
    Path("bm25.trec").write_text("q1 Q0 d2 1 2 x\nq1 Q0 d9 2 1 x\nq1 Q0 d1 3 0 x\n")
    exec(code, {})
    assert {hit.docid for hit in read_run("mixlm.trec")["q1"][:2]} == {"d1", "d9"}


def test_the_librarys_page_lists_every_public_name() -> None:
    page = LIBRARY.read_text(encoding="utf-8")
    names = [*mixlm_rerank.__all__, *mixlm_rerank.data.__all__]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_picture_is_of_the_default_model() -> None:
    picture = (README.parent / "docs" / "mixlm.svg").read_text(encoding="utf-8")
    (tokens,) = re.findall(r'<g id="tokens".*?</g>', picture)
    count = MixLM.from_pretrained("default", device="cpu").config.tokens
    assert tokens.count("<rect") == count and f"{count + 1} positions each" in picture
    (size,) = re.findall(r"([\d.]+ KB) a document", picture)
    assert f"An index of {size} a document ({count} tokens, int8)" in README.read_text(encoding="utf-8")


def test_the_commands_of_the_start_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([\w-]+)", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{command}:", makefile, flags=re.MULTILINE) for command in commands)
