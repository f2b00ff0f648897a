"""A folder in which the whole way has been gone once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document

TOPICS = {
    "q1": "a dog barks at the moon",
    "q2": "cats and the mail man",
    "q3": "zebra",
    "d4": "bread with salt and mail",
}
QRELS = [("q1", "d1", 2), ("q1", "d3", 1), ("q2", "d2", 1), ("d4", "d6", 1), ("q9", "d5", 1)]


@pytest.fixture(scope="session")
def gone(
    checkpoint: Callable[..., Path],
    documents: list[Document],
    mixlm: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    """A folder with corpus, topics, judgments, model, both indexes and the BM25 run; and what the commands said."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = [{"_id": d.docid, "title": d.title, "text": d.text} for d in documents]
        Path("corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        Path("topics.tsv").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
        Path("qrels.txt").write_text("".join(f"{qid} 0 {docid} {grade}\n" for qid, docid, grade in QRELS))
        checkpoints = f"--item-encoder {checkpoint('bert')} --ranker {checkpoint('qwen3')} --offline"
        commands = [
            f"model init model {checkpoints} --max-query-tokens 64 --max-document-tokens 40",
            "bm25 index corpus.jsonl lucene",
            "bm25 search lucene --topics topics.tsv --output bm25.trec",
            "index build corpus.jsonl tokens --model model",
        ]
        said = {}
        for command in commands:
            said[" ".join(command.split()[:2])] = done = mixlm(command)
            assert done.code == 0, done
    return folder, said


@pytest.fixture
def work(gone: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(gone[0], tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"
