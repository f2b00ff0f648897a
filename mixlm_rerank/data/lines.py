"""Text files line by line: plain or gzip, with or without BOM and CRLF; and files that appear whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError

__all__ = ["json_lines", "lines", "writing"]


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of every line that is not blank.

    Raises InputError if the file is missing, is not UTF-8, or is a broken gzip.
    """
    path = Path(path)
    number = 0
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after line {number}: not UTF-8 ({error.reason}); convert it (iconv)") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file, line N", object) of every line of a JSONL file. Raises InputError for a line that is no JSON object."""
    for number, line in lines(path):
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a JSON object, not {type(value).__name__}")
        yield where, value


@contextmanager
def writing(path: str | Path) -> Iterator[TextIO]:
    """A text file to write; it takes its name only when all is written, so nothing half written is ever found.

    A device or pipe (``/dev/stdout``) is written to as it is. Raises InputError if it cannot be written (no such
    folder, disk full); what stood at ``path`` before stays.
    """
    path = Path(path)
    stream = path.is_relative_to("/dev") or (path.exists() and not path.is_file())
    target = path.resolve() if path.is_symlink() else path
    draft = path if stream else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # backslashreplace: half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes JSON's own escape
        with draft.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
        if not stream:
            draft.replace(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if not stream:
            with suppress(OSError):
                draft.unlink()
