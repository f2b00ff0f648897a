"""The rankings of one system, kept query by query while they are made: an interrupted evaluation loses one query."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import InputError
from mixlm_rerank.types import ScoredDoc

__all__ = ["Record", "Timed"]


@dataclass(frozen=True)
class Timed:
    """One query's ranking, and the seconds that it took."""

    docs: list[ScoredDoc]
    seconds: float


class Record:
    """A JSONL file: what is ranked (``key``) on the first line, then a ranked query on each.

    With another key (another model, depth or first stage) the file is begun anew.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.ranked: dict[str, Timed] = {}
        self.costs: dict[str, Any] | None = None
        try:
            head, *rows = _whole_lines(path) or [""]
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
        known = head == _line({"key": key})
        for row in map(json.loads, rows if known else ()):
            if "costs" in row:
                self.costs = row["costs"]
                continue
            docs = [
                ScoredDoc(docid, score, rank, first, rank > len(row["docs"]) - row["missing"])
                for rank, (docid, score, first) in enumerate(row["docs"], 1)
            ]
            self.ranked[row["qid"]] = Timed(docs, row["seconds"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+" if known else "w", encoding="utf-8")
            self._file.truncate(sum(map(len, (head, *rows))) if known else 0)  # a line that was cut off goes
            self._file.seek(0, 2)
            if not known:
                self._write({"key": key})
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None

    def add(self, qid: str, timed: Timed) -> None:
        """Keep one query's ranking. Raises InputError if it cannot be written; what is there stays."""
        docs = [(doc.docid, doc.score, doc.first_stage_score) for doc in timed.docs]
        missing = sum(doc.missing for doc in timed.docs)  # they stand last
        self._write({"qid": qid, "seconds": timed.seconds, "missing": missing, "docs": docs})
        self.ranked[qid] = timed

    def finish(self, costs: dict[str, Any]) -> None:
        """All queries are ranked; keep what else it cost. Raises InputError if it cannot be written."""
        self._write({"costs": costs})
        self.costs = costs

    def close(self) -> None:
        with suppress(OSError):  # of a line that could not be written; that was said
            self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        try:
            self._file.write(_line(line))
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}: {error.strerror or error}; {len(self.ranked):,} ranked queries are safe in "
                "it: make room and run the same command again to go on"
            ) from None


def _line(line: dict[str, object]) -> str:
    return json.dumps(line) + "\n"  # ASCII: a character is a byte


def _whole_lines(path: Path) -> list[str]:
    """The lines up to the first that is not whole: cut off by a kill, or lost in a power failure."""
    lines = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True) if path.is_file() else []
    return list(takewhile(_is_whole, lines))


def _is_whole(line: str) -> bool:
    try:
        return line.endswith("\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
