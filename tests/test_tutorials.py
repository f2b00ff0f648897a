"""The tutorials run as they stand, and every page names commands and options that exist."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from mixlm_rerank import MixLM
from mixlm_rerank.cli import app

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = ("distill", "serve")  # other tests run these: the first trains, the second does not end


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """What stands behind ``mixlm-rerank`` in the page's shell blocks; a line may go on after a backslash."""
    for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        found = re.search(r"(?:^|\s)mixlm-rerank (.*?)(?:\s#\s.*)?$", line)
        if found and not line.startswith(("pip ", "docker ")):
            yield found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_commands_exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        command: Any = typer.main.get_command(app)
        arguments = shlex.split(line)
        while hasattr(command, "commands"):
            name = arguments.pop(0)
            assert name in command.commands, line
            command = command.commands[name]
        try:
            command.make_parser(click.Context(command)).parse_args(arguments)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.message}")


@pytest.fixture
def place(beir: Path, cross_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with all that the tutorials ask their reader to have."""
    for name in ("DATA/scifact", "DATA/nfcorpus", "CORPUS"):
        shutil.copytree(beir, tmp_path / name)
    (tmp_path / "MY_CROSS_ENCODER").symlink_to(cross_encoder())
    MixLM.from_pretrained("default", device="cpu").save_pretrained(tmp_path / "fitted" / "model")
    shutil.copy(beir / "queries.jsonl", tmp_path / "topics.tsv")
    shutil.copy(beir / "run.trec", tmp_path / "bm25.trec")
    shutil.copy(beir / "run.trec", tmp_path / "mixlm.trec")
    shutil.copy(beir / "qrels" / "test.tsv", tmp_path / "qrels.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in TUTORIALS if page.stem != "serve"], ids=lambda page: page.stem)
def test_a_tutorial_runs(
    page: Path, place: Path, mixlm: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(page):
        if command.split()[0] not in LONG:
            done = mixlm(command)
            assert done.code == 0, (command, done.err)
    for code in blocks(page, "python"):
        exec(code, {})
        assert "d1" in capsys.readouterr().out


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_is_short_and_readme_names_it(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 60
    assert f"](docs/tutorials/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
