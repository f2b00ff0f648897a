"""``mixlm-rerank index build`` under Ctrl-C and on a full disk: one line says what is safe, and the command goes on."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document, MixLM, TokenIndex
from mixlm_rerank.data import JsonlCorpus
from mixlm_rerank.index import builder
from mixlm_rerank.index.local import LocalStore

WINDOW = 32


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "WINDOW", WINDOW)


@dataclass(frozen=True)
class Job:
    """A corpus and a model on disk, and the index that they make when nothing goes wrong."""

    corpus: Path
    model: Path
    documents: list[Document]
    whole: dict[str, object]

    def command(self, folder: Path) -> str:
        return f"index build {self.corpus} {folder} --model {self.model} --device cpu --quiet"

    def resume(self, folder: Path) -> None:
        corpus, model = JsonlCorpus(self.corpus), MixLM.from_pretrained(self.model, device="cpu")
        TokenIndex.build(corpus, model, folder, corpus=str(self.corpus), progress=False)


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """It stands for the full disk: Python ignores SIGXFSZ, so that writes past ``size`` bytes are errors."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def job(tmp_path_factory: pytest.TempPathFactory, tiny: Any, contents: Any) -> Job:
    folder = tmp_path_factory.mktemp("job")
    rows = [{"id": number, "text": f"The moon goes round the dog {number} times."} for number in range(600)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny("bert").save_pretrained(folder / "model")
    job = Job(folder / "corpus.jsonl", folder / "model", list(JsonlCorpus(folder / "corpus.jsonl")), {})
    job.resume(folder / "whole")
    job.whole.update(contents(folder / "whole", job.documents))
    return job


def test_interrupted_by_ctrl_c_it_exits_with_130_and_goes_on_later(
    job: Job, tmp_path: Path, contents: Any, mixlm: Any
) -> None:
    """After three windows."""
    folder, append = tmp_path / "index", LocalStore.append

    def append_until_interrupted(store: LocalStore, *arguments: Any) -> None:
        append(store, *arguments)
        if store.rows == 3 * WINDOW:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "append", append_until_interrupted)
        done = mixlm(job.command(folder))
    told = f"interrupted: {3 * WINDOW} documents are safe; run the same command again to go on\n"
    assert (done.code, done.out, done.err) == (130, "", told)
    assert LocalStore(folder).rows == 3 * WINDOW
    job.resume(folder)
    assert contents(folder, job.documents) == job.whole


def test_on_a_full_disk_it_exits_with_2_and_goes_on_when_there_is_room(
    job: Job, tmp_path: Path, contents: Any, mixlm: Any
) -> None:
    folder = tmp_path / "index"
    with no_file_over(60_000):  # bytes; all records need 158,400
        done = mixlm(job.command(folder))
    assert (done.code, done.out) == (2, "")
    said = re.fullmatch(
        rf"error: cannot write to {folder} \(.*\): disk full\? (\d+) documents are safe in it; .*\n", done.err
    )
    assert said, done.err
    assert 0 < int(said[1]) == LocalStore(folder).rows < 600
    job.resume(folder)
    assert contents(folder, job.documents) == job.whole
