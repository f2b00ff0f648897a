"""Read text files line by line, compressed or not, in UTF-8 or UTF-16; write files atomically."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError

__all__ = ["beginning", "file_in", "id_in", "json_lines", "lines", "shape", "some_ids", "write_json", "writing"]

# The first bytes of a file tell its format: suffixes may be missing or wrong.
DECOMPRESS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
UNREAD = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first (zstd -d)",
    b"\x1f\x9d": "compressed by compress: unpack it first (gzip -d)",
    b"PK\x03\x04": "a zip archive: unpack it first (unzip)",
}
SUFFIXES = ("", ".gz", ".bz2", ".xz", ".zst")


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its line end) for every line that is not blank.

    Files may be plain or compressed by gzip, bzip2 or xz, in UTF-8, or in UTF-16 with a byte order mark. Lines end with
    LF or CRLF; a carriage return without LF is part of the line.

    Raises InputError if the file is missing or has another format.
    """
    path = Path(path)
    number = 0
    try:
        with path.open("rb") as raw, _text(raw, path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"{path}, after line {number}: not UTF-8 ({reason}); convert it (iconv)") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _text(raw: BufferedReader, path: Path) -> TextIO:
    """Open as decompressed text. The first bytes are peeked at, not read twice: the file may be a pipe."""
    beginning = raw.peek(6)
    for magic, told in UNREAD.items():
        if beginning.startswith(magic):
            raise InputError(f"{path} is {told}")
    file: Any = next((unpacked(raw) for magic, unpacked in DECOMPRESS.items() if beginning.startswith(magic)), raw)
    beginning = file.peek(512)[:512]
    encoding = "utf-16" if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if b"\0" in beginning and encoding != "utf-16":
        raise InputError(f"{path} is no text: unpack it if it is an archive (tar), convert it if it is UTF-16 (iconv)")
    return TextIOWrapper(file, encoding=encoding, newline="\n")


def beginning(path: Path) -> str:
    """The first line that is not blank; "" if there is none."""
    return next((line.lstrip() for _, line in lines(path)), "")


def file_in(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, compressed or not; None if there is none."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def json_lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file, line N", object) of every line of a JSONL file. Raises InputError for a line that is no JSON object."""
    for number, line in lines(path):
        where = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
        except (ValueError, RecursionError) as error:  # too many digits of an integer, too many brackets
            raise InputError(f"{where}: not valid JSON ({str(error).partition(':')[0]})") from None
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected a JSON object, not {type(value).__name__}")
        yield where, value


def id_in(fields: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """The id under the first of these keys that is not null: a string or an integer. None if it is anything else."""
    value = next((fields[key] for key in keys if fields.get(key) is not None), None)
    return str(value) if value != "" and isinstance(value, str | int) and not isinstance(value, bool) else None


def shape(fields: Mapping[str, Any]) -> str:
    """Keys of a JSON object and their types, for an error message.

    >>> shape({"_id": 1.0, "text": None})
    '_id (float), text (null)'
    """
    kinds = {key: "null" if value is None else type(value).__name__ for key, value in fields.items()}
    return ", ".join(f"{key} ({kind})" for key, kind in kinds.items()) or "nothing"


def some_ids(ids: Iterable[str]) -> str:
    """The first three ids, for an error message.

    >>> some_ids(["1", "2", "3", "4"])
    '1, 2, 3 ...'
    """
    shown = list(ids)
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "") or "none"


def write_json(path: str | Path, values: object) -> None:
    """Write ``values`` as JSON, atomically: see :func:`writing`."""
    with writing(path) as file:
        file.write(json.dumps(values, indent=1) + "\n")


@contextmanager
def writing(path: str | Path) -> Iterator[TextIO]:
    """Open a text file to be written atomically: a draft, which is renamed to ``path`` when it is complete.

    A device or pipe (``/dev/stdout``) is written to directly. Raises InputError if the file cannot be written (no such
    folder, disk full); an earlier file at ``path`` is kept then.
    """
    path = Path(path)
    stream = path.is_relative_to("/dev") or (path.exists() and not path.is_file())
    target = path.resolve() if path.is_symlink() else path
    draft = path if stream else target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # backslashreplace: a lone surrogate, which JSON can hold and UTF-8 cannot, becomes JSON's own escape
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
