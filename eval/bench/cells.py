"""Finished cells of a measurement, kept one by one: an interrupted benchmark loses the cell that it was at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.systems.machine import machine

__all__ = ["Cells", "conditions"]

FILE = "cells.jsonl"


def conditions(model: MixLM | None, **settings: object) -> dict[str, Any]:
    """What all cells of one measurement must have in common: machine, version, weights, settings."""
    own = {} if model is None else {"weights": weights_hash(model)}
    return {**machine(), "mixlm-rerank": version("mixlm-rerank"), **own, **settings}


class Cells:
    """A JSONL file in ``folder``: the conditions on the first line, then a cell on each.

    Raises InputError if the folder holds cells of other conditions, or cannot be written.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, object]) -> None:
        self.path = folder / FILE
        self.kept: dict[str, Any] = {}
        wanted = json.loads(json.dumps(conditions))  # tuples become lists, as in the file
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = _whole_lines(self.path)
            self._refuse_others(lines, wanted)
            self.kept = {row["cell"]: row["values"] for row in map(json.loads, lines[1:])}
            self._file = self.path.open("a", encoding="utf-8")
            self._file.truncate(sum(map(len, lines)))  # a line that was cut off goes
            if not lines:
                self._write({"conditions": wanted})
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror or error}; choose another folder") from None

    def keep(self, cell: str, values: Any) -> Any:
        """Write a finished cell down; returns it as it will be read. Raises InputError if it cannot be written."""
        try:
            self._write({"cell": cell, "values": values})
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}: {error.strerror or error}; {len(self.kept)} cells are safe in it: make "
                "room and run the same command again to go on"
            ) from None
        self.kept[cell] = json.loads(json.dumps(values))
        return self.kept[cell]

    def close(self) -> None:
        with suppress(OSError):  # of a line that could not be written; that was said
            self._file.close()

    def _refuse_others(self, lines: list[str], wanted: Mapping[str, object]) -> None:
        if not lines:
            return
        there = json.loads(lines[0]).get("conditions", {})
        for name in dict.fromkeys([*there, *wanted]):
            if there.get(name) != wanted.get(name):
                raise InputError(
                    f"{self.path} was measured under other conditions ({name}: {there.get(name)} there, "
                    f"{wanted.get(name)} here): choose another --output, or delete that file"
                )

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")  # ASCII: a character is a byte
        self._file.flush()


def _whole_lines(path: Path) -> list[str]:
    """The lines up to the first that is not whole: cut off by a kill."""
    lines = path.read_text(encoding="ascii", errors="replace").splitlines(keepends=True) if path.is_file() else []
    whole = []
    for line in lines:
        try:
            if not line.endswith("\n") or not isinstance(json.loads(line), dict):
                break
        except ValueError:
            break
        whole.append(line)
    return whole
