"""A file appears whole or not at all; what stood there before an error stays."""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixlm_rerank.data.lines import lines, writing
from mixlm_rerank.errors import InputError


@pytest.mark.parametrize("old", [None, "old\n"])
def test_it_takes_its_name_only_when_all_is_written(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "run"
    if old is not None:
        path.write_text(old)
    with writing(path) as file:
        file.write("é\n")
        file.flush()
        assert (path.read_text() if path.exists() else None) == old
    assert path.read_bytes() == "é\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), InputError("bad document")], ids=repr)
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "run"
    path.write_text("old\n")
    with pytest.raises(type(error)), writing(path) as file:
        file.write("half of the new\n")
        raise error
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no folder/run", "No such file or directory"),
        ("file/run", "Not a directory"),
        ("folder", "Is a directory"),
        ("x" * 250, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"^cannot write {tmp_path / name}: {reason}$"), writing(tmp_path / name):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_input_error() -> None:
    with (
        pytest.raises(InputError, match="cannot write /dev/full: No space left on device"),
        writing("/dev/full") as file,
    ):
        file.write("text\n")


def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As root, renaming a file to /dev/null or /dev/stdout would succeed, and break the machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with writing(pipe) as file:
        file.write("text\n")
    assert os.read(reader, 100) == b"text\n"
    os.close(reader)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old\n")
    (tmp_path / "link").symlink_to("target")
    with writing(tmp_path / "link") as file:
        file.write("new\n")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new\n"


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    """As a shell's ``<(zcat run.gz)``: what its first bytes told cannot be read again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(pipe.write_bytes, gzip.compress(b"one\ntwo\n"))
        assert list(lines(pipe)) == [(1, "one"), (2, "two")]
        written.result()


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfone\r\n\r\n \nfour \nfive")
    assert list(lines(tmp_path / "text")) == [(1, "one"), (4, "four "), (5, "five")]
