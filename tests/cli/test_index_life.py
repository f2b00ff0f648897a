"""The life of an index on the command line: one line says what happened, a mistake exits with 2 and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import MixLM, TokenIndex


@pytest.fixture
def folder(tmp_path: Path, tiny: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch) -> Path:
    """``model``, ``corpus.jsonl`` (d0 to d9) and ``tokens``, an index of it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    tiny("bert", tokens=4).save_pretrained("model")
    write("corpus.jsonl", {f"d{number}": f"text {number}" for number in range(10)})
    model = MixLM.from_pretrained("model", device="cpu")
    from mixlm_rerank.data import JsonlCorpus

    TokenIndex.build(JsonlCorpus("corpus.jsonl"), model, "tokens", corpus="corpus.jsonl", progress=False)
    return tmp_path


def write(path: str, texts: dict[str, str]) -> None:
    lines = [json.dumps({"_id": docid, "text": text}) for docid, text in texts.items()]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_its_life(folder: Path, mixlm: Any) -> None:
    """Each command says what it did; the model is the one that built the index, unless one is given."""
    write("new.jsonl", {"d10": "text 10", "d3": "text 3"})
    write("changed.jsonl", {"d4": "new text 4", "d11": "text 11", "d5": "text 5"})
    write("now.jsonl", {f"d{number}": f"text {number}" for number in range(1, 10)})
    for command, said in (
        ("add tokens new.jsonl", "1 new, 0 changed, 1 unchanged, 0 deleted"),
        ("replace tokens changed.jsonl", "1 new, 1 changed, 1 unchanged, 0 deleted"),
        ("delete tokens d11 d0", "0 new, 0 changed, 10 unchanged, 2 deleted"),
        ("sync tokens now.jsonl", "0 new, 1 changed, 8 unchanged, 1 deleted"),
        ("verify tokens", "9 documents, all intact"),
        ("compact tokens", "MB saved"),
        ("copy tokens copied", "copied: 9 documents"),
        ("import shards imported", "imported: 9 documents"),
    ):
        if command.startswith("import"):
            assert mixlm("index export tokens shards --quiet").code == 0
        done = mixlm(f"index {command}" + ("" if command.startswith(("delete",)) else " --quiet"))
        assert (done.code, done.out) == (0, "")
        assert said in done.err
    assert TokenIndex("imported").info().dead == 0


def test_a_dry_run_says_and_does_nothing(folder: Path, mixlm: Any) -> None:
    write("now.jsonl", {"d0": "text 0", "d1": "another", "d12": "new"})
    done = mixlm("index sync tokens now.jsonl --dry-run")
    assert (done.code, done.out) == (0, "tokens: 1 new, 1 changed, 1 unchanged, 8 deleted\n")
    assert len(TokenIndex("tokens")) == 10 and TokenIndex("tokens").info().dead == 0


def test_most_of_an_index_is_not_deleted_unasked(folder: Path, mixlm: Any) -> None:
    write("now.jsonl", {"d0": "text 0"})
    done = mixlm("index sync tokens now.jsonl --quiet")
    assert done.code == 2 and "if now.jsonl is the right corpus, add --yes" in done.err
    assert len(TokenIndex("tokens")) == 10
    assert mixlm("index sync tokens now.jsonl --yes --quiet").code == 0
    assert len(TokenIndex("tokens")) == 1


def test_docids_out_of_a_file(folder: Path, mixlm: Any) -> None:
    Path("gone.txt").write_text("d1\nd2\n\n", encoding="utf-8")
    assert mixlm("index delete tokens d3 --file gone.txt").code == 0
    assert len(TokenIndex("tokens")) == 7
    info = mixlm("index info tokens")
    assert "documents     7; 3 dead records (index compact)" in info.out
    assert json.loads(mixlm("index info tokens --json").out)["dead"] == 3


def test_how_much_was_read_is_said(folder: Path, mixlm: Any) -> None:
    """Bytes are the tokens of this model; 38 of a text are read."""
    write("long.jsonl", {"short": "#" * 38, "long": "#" * 76, "longer": "#" * 114})
    done = mixlm("index build long.jsonl cut --model model")
    said = "2 of 3 documents were cut to 38 tokens: 40% of their tokens were read"
    assert done.code == 0
    assert "about 67% of the documents are too long and lose their end (--passages reads all of them)" in done.err
    assert done.err.endswith(f"{said}. To read all of them: index build --passages\n")
    assert f"read          {said}\n" in mixlm("index info cut").out
    assert json.loads(mixlm("index info cut --json").out)["unread"] == 38 + 76
    assert mixlm("index delete cut long").code == 0
    assert "1 of 2 documents were cut to 38 tokens: 33%" in mixlm("index info cut").out

    done = mixlm("index build long.jsonl whole --model model --passages")
    assert done.code == 0 and "3 documents in 8 passages" in done.err and "cut" not in done.err
    assert "read          all of every document\n" in mixlm("index info whole").out
    assert "documents     3 in 8 passages\n" in mixlm("index info whole").out
    done = mixlm("index sync whole corpus.jsonl --yes --quiet")
    assert "10 new, 0 changed, 0 unchanged, 3 deleted" in done.err


def test_damage_is_listed_with_exit_code_1_and_can_be_removed(folder: Path, mixlm: Any) -> None:
    path = folder / "tokens" / "tokens-000000.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = mixlm("index verify tokens --quiet")
    assert (done.code, done.out) == (1, "d5\tits checksum is another\n")
    assert "1 of 10 documents are damaged; to remove them: --drop; then encode them again" in done.err
    assert mixlm("index verify tokens --drop --quiet").code == 1
    assert mixlm("index sync tokens corpus.jsonl --quiet").err.startswith("tokens: 1 new")
    assert mixlm("index verify tokens --quiet").code == 0


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("add nowhere corpus.jsonl", "no token index at nowhere"),
        ("add tokens nowhere.jsonl", "no corpus at 'nowhere.jsonl'"),
        ("add tokens other.jsonl", "holds 'd3' already, with another text: use replace"),
        ("delete tokens x", "does not hold 'x'"),
        ("delete tokens", "nothing to delete: give docids, or --file"),
        ("delete tokens --file nowhere", "no such file: nowhere"),
        ("sync tokens empty.jsonl", "the corpus holds no documents"),
        ("compact nowhere", "no token index at nowhere"),
        ("verify nowhere", "no token index at nowhere"),
        ("copy tokens model", "model exists already"),
        ("export tokens nothing://x", "cannot open nothing://x"),
        ("import model imported", "model holds no exported index"),
        ("push tokens redis://localhost", "does not name an index"),
        ("push tokens redis://127.0.0.1:1/0#name", "does not answer"),
        ("build corpus.jsonl new --engine spark", 'engine must be "local" or "ray"'),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, mixlm: Any, command: str, error: str) -> None:
    write("other.jsonl", {"d3": "another text"})
    Path("empty.jsonl").touch()
    if command.startswith("sync"):
        command += " --yes"
    done = mixlm(f"index {command}")
    assert done.code == 2
    assert error in done.err and "Traceback" not in done.err
    assert len(TokenIndex("tokens")) == 10
