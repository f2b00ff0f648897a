"""Real processes: exit codes and what lands on stdout and stderr."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes


def mixlm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed ``mixlm-rerank`` script."""
    return subprocess.run([Path(sys.executable).with_name("mixlm-rerank"), *arguments], capture_output=True, text=True)


def test_bad_input_is_one_line_on_stderr_and_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = mixlm(*"bm25 search lucene --topics gone.tsv --output run.trec".split())
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no such file: gone.tsv\n")
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_a_fresh_process_can_be_piped_on(gone: tuple[Path, object]) -> None:
    """Java is started by the command itself, and writes nothing where results go."""
    done = mixlm("bm25", "search", f"{gone[0]}/lucene", "--topics", f"{gone[0]}/topics.tsv", "--output", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (gone[0] / "bm25.trec").read_text()
    assert "/dev/stdout: 10 candidates of 4 queries\n" in done.stderr


def test_it_tells_its_version() -> None:
    assert mixlm("--version").stdout == f"{version('mixlm-rerank')}\n"


def test_ctrl_c_ends_it_though_a_destructor_swallows_it() -> None:
    """Garbage collection may begin between any two lines; an exception in it is printed, and forgotten."""
    program = """
import signal, sys, time
from mixlm_rerank.cli import app, main
class Falls:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
@app.command()
def wait():
    Falls()
    time.sleep(100)
sys.argv[1:] = ["wait"]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90)
    assert done.returncode == 130 and "KeyboardInterrupt" not in done.stderr
