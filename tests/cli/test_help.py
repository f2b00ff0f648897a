"""The help of every command, which is also the documentation of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from mixlm_rerank.cli import app

Command = Callable[[str], Any]


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every group and command with its name: ``("index build", ...)``."""
    yield name, command
    for child, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {child}".strip())


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_these_are_the_commands() -> None:
    assert [name for name, command in COMMANDS.items() if not hasattr(command, "commands")] == [
        "rerank",
        "search",
        "serve",
        "train",
        "distill",
        "ablate",
        "calibrate",
        "demo",
        "model init",
        "model titles",
        "model export",
        "model unpack",
        "index build",
        "index info",
        "index add",
        "index replace",
        "index delete",
        "index sync",
        "index compact",
        "index verify",
        "index copy",
        "index export",
        "index import",
        "index push",
        "bm25 index",
        "bm25 search",
        "eval report",
        "eval fit",
        "eval teacher",
        "eval compare",
        "eval figures",
        "eval interleave",
        "eval runs",
        "bench grid",
        "bench decoder",
        "bench growth",
        "bench build",
        "bench store",
        "bench serve",
        "bench gpu",
        "bench all",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_and_each_of_its_parameters_are_for(mixlm: Command, name: str) -> None:
    done = mixlm(f"{name} --help")
    assert (done.code, done.err) == (0, "")
    shown = "".join(done.out.split())  # lines are broken at blanks and at hyphens
    assert COMMANDS[name].help and "".join(COMMANDS[name].help.split()) in shown
    for parameter in COMMANDS[name].params:
        assert parameter.help, parameter.name
        assert max(parameter.opts, key=len).lower() in shown.lower()  # older Typers write FOLDER
        assert "".join(parameter.help.split()) in shown


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if hasattr(command, "commands")])
def test_a_group_alone_lists_its_commands_with_their_purpose(mixlm: Command, name: str) -> None:
    done = mixlm(name)
    listed = dict(
        line.split(maxsplit=1) for line in (done.out + done.err).partition("Commands:\n")[2].splitlines() if line
    )
    assert set(listed) == set(COMMANDS[name].commands)
    assert all(len(purpose.split()) > 1 for purpose in listed.values())


def test_defaults_are_shown(mixlm: Command) -> None:
    assert "default: 100" in " ".join(mixlm("bm25 search --help").out.split())
    assert "default: last" in " ".join(mixlm("rerank --help").out.split())
