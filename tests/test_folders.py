"""A folder that is being replaced, killed at any moment, holds all of the old or all of the new."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mixlm_rerank import folders
from mixlm_rerank.errors import InputError
from mixlm_rerank.folders import replacing, settle

OLD, NEW = {"config.json": "old", "part/weights": "old"}, {"config.json": "new", "part/weights": "new"}


def fill(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def held(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace(folder: Path, kill_at: int) -> None:
    """Up to so many lines of ``folders.py``."""
    left = kill_at

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename == folders.__file__:
            left -= event == "line"
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace
        return None

    sys.settrace(trace)
    with replacing(folder) as draft:
        fill(draft, NEW)


def killed(folder: Path, kill_at: int) -> bool:
    child = os.fork()
    if not child:
        try:
            replace(folder, kill_at)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_line_all_is_old_or_all_is_new(tmp_path: Path) -> None:
    found = []
    for line in itertools.count(1):
        folder = tmp_path / str(line)
        folder.mkdir()
        fill(folder, OLD | {"notes": "mine"})
        went_on = not killed(folder, line)
        settle(folder)
        visible = {name: text for name, text in held(folder).items() if not name.startswith(folders.DRAFT)}
        assert visible in (OLD | {"notes": "mine"}, NEW | {"notes": "mine"}), line
        found.append(visible["config.json"])
        if went_on:
            break
    assert found == ["old"] * found.count("old") + ["new"] * found.count("new")
    assert min(found.count("old"), found.count("new")) > 10
    with replacing(folder) as draft:  # what a kill has left is not in the way of the next one
        fill(draft, OLD)
    assert held(folder) == OLD | {"notes": "mine"}


def test_killed_at_any_line_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for line in itertools.count(1):
        folder = tmp_path / str(line) / "model"
        went_on = not killed(folder, line)
        assert not folder.exists() or held(folder) == NEW, line
        if went_on:
            break
    assert held(folder) == NEW and line > 5


def test_a_replacement_that_fails_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, OLD)
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(ZeroDivisionError), replacing(folder) as draft:
            fill(draft, NEW)
            raise ZeroDivisionError
    assert held(tmp_path) == OLD and sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "part"]


def test_what_cannot_be_finished_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / folders.WHOLE).mkdir()
    (tmp_path / folders.WHOLE / "config.json").touch()

    def refused(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(InputError, match="was being replaced when .* load it once as a user who may write to it"):
        settle(tmp_path)
