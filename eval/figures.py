"""Published figures with the commands that reproduce them: experiments out of a YAML file (``docs/figures.yaml``)."""

from __future__ import annotations

import datetime
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, model_validator

from mixlm_rerank.errors import InputError

__all__ = ["Experiment", "Figure", "load_experiments"]

PLAIN_NUMBER = re.compile(r"[+-]?\d*(?:\.(\d+))?")


class _Row(BaseModel):
    """A misspelt field is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Row):
    """One published number, and where its experiment leaves it. Either ``at`` or ``path`` says where.

    Attributes:
        display: as it is printed, ".6789"; a plain number must be ``value``, rounded.
        pages: files that print it, from the root of the repository.
        value, tolerance: what is found may differ from ``value`` by no more than ``tolerance``.
        at: of an ``eval report``: collection, system, and a measure or a field of its efficiency, comparison or
            fidelity (``nDCG@10``, ``documents_per_second``, ``p_t``). "mean" for a collection: over all of them.
        path: of any JSON file: the keys to it. In a list, a number is a position and a word is the item of that name.
        file: that JSON file, from the experiment's folder.
    """

    display: str = Field(min_length=1)
    pages: list[str] = Field(min_length=1)
    value: FiniteFloat
    tolerance: Annotated[FiniteFloat, Field(ge=0)]
    at: tuple[str, str, str] | None = None
    path: list[str | int] | None = Field(default=None, min_length=1)
    file: str = "results.json"

    @property
    def label(self) -> str:
        return ", ".join(map(str, self.at or self.path or ()))

    @model_validator(mode="after")
    def _one_place(self) -> Figure:
        if (self.at is None) == (self.path is None):
            raise ValueError("say where it is found, by at (collection, system, measure) or by path, not both")
        return self

    @model_validator(mode="after")
    def _display_is_the_value(self) -> Figure:
        text = self.display.replace(",", "")
        plain = PLAIN_NUMBER.fullmatch(text)
        if plain and any(map(str.isdigit, text)):
            half = 0.5 * 10 ** -len(plain[1] or "")
            if abs(float(text) - self.value) > half * 1.000001:  # a half may be rounded either way
                raise ValueError(f"display {self.display!r} is not the value {self.value:g}, rounded")
        return self


class Experiment(_Row):
    """A command, and the figures that it reproduces.

    Attributes:
        name: short and unique; also that of its folder.
        command: what a reader types; no shell, but ``&&`` between commands. ``{data}`` is the folder of collections,
            ``{out}`` a scratch folder, ``{minilm}`` the checkpoint all-MiniLM-L6-v2.
        needs: what a machine may lack.
        date, machine: the conditions under which the values were found.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    command: str = Field(pattern=r"\S")
    needs: list[Literal["data", "gpu"]] = []
    date: datetime.date
    machine: str
    figures: list[Figure] = Field(min_length=1)

    @model_validator(mode="after")
    def _command_can_be_read(self) -> Experiment:
        shlex.split(self.command)  # a ValueError for an open quote
        if ("{data}" in self.command) != ("data" in self.needs):
            raise ValueError("needs has data if, and only if, the command has {data}")
        return self


def load_experiments(path: str | Path) -> list[Experiment]:
    """All experiments of a file. Raises InputError, naming file, experiment and field, for anything else."""
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
    """``experiment 'scifact', figures.0.value``; positions count from 0."""
    if row is None:
        return "expected a list of experiments"
    named = rows[row].get("name", row) if isinstance(row, int) and isinstance(rows[row], dict) else row
    return ", ".join([f"experiment {named!r}", *[".".join(map(str, field))] * bool(field)])
