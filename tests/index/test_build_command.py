"""``mixlm-rerank index build`` under Ctrl-C and on a full disk: one line says what is safe, and the command goes on."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document, MixLM, TokenIndex
from mixlm_rerank.data import JsonlCorpus
from mixlm_rerank.index import builder
from mixlm_rerank.index.local import LocalStore

WINDOW = 32
RECORD_BYTES = 4 * 64 + 2 * 4
# The real command, only with small windows and a pause after each, so that there is time to interrupt it.
COMMAND = f"""
import time
from mixlm_rerank.cli import main
from mixlm_rerank.index import builder
from mixlm_rerank.index.local import LocalStore
builder.WINDOW, append = {WINDOW}, LocalStore.append
def append_and_pause(self, *args):
    append(self, *args)
    time.sleep(PAUSE)
LocalStore.append = append_and_pause
main()
"""


@dataclass(frozen=True)
class Job:
    """A corpus and a model on disk, and the index that they make when nothing goes wrong."""

    corpus: Path
    model: Path
    documents: list[Document]
    whole: dict[str, object]

    def start(self, folder: Path, pause: float, preexec_fn: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        arguments = ["index", "build", self.corpus, folder, "--model", self.model, "--device", "cpu", "--quiet"]
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND.replace("PAUSE", str(pause)), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=preexec_fn,
        )

    def resume(self, folder: Path) -> None:
        corpus, model = JsonlCorpus(self.corpus), MixLM.from_pretrained(self.model, device="cpu")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builder, "WINDOW", WINDOW)
            TokenIndex.build(corpus, model, folder, corpus=str(self.corpus), progress=False)


def written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("tokens-*.bin"))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny: Any, contents: Any) -> Job:
    folder = tmp_path_factory.mktemp("job")
    rows = [{"id": number, "text": f"The moon goes round the dog {number} times."} for number in range(600)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny("bert").save_pretrained(folder / "model")
    job = Job(folder / "corpus.jsonl", folder / "model", list(JsonlCorpus(folder / "corpus.jsonl")), {})
    job.resume(folder / "whole")
    job.whole.update(contents(folder / "whole", job.documents))
    return job


def test_interrupted_by_ctrl_c_it_exits_with_130_and_goes_on_later(job: Job, tmp_path: Path, contents: Any) -> None:
    folder = tmp_path / "index"
    process = job.start(folder, pause=0.3)
    while written(folder) < 3 * WINDOW * RECORD_BYTES and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    safe = LocalStore(folder).rows
    assert (out, err) == ("", f"interrupted: {safe} documents are safe; run the same command again to go on\n")
    assert 0 < safe < 600
    job.resume(folder)
    assert contents(folder, job.documents) == job.whole


def test_on_a_full_disk_it_exits_with_2_and_goes_on_when_there_is_room(job: Job, tmp_path: Path, contents: Any) -> None:
    folder = tmp_path / "index"
    no_file_over = 60_000  # bytes; all records need 158,400
    process = job.start(folder, 0, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (no_file_over, no_file_over)))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    said = re.fullmatch(
        rf"error: cannot write to {folder} \(.*\): disk full\? (\d+) documents are safe in it; .*\n", err
    )
    assert said, err
    assert 0 < int(said[1]) == LocalStore(folder).rows < 600
    job.resume(folder)
    assert contents(folder, job.documents) == job.whole
