"""Rankings on disk while they are made: whatever ends the process, whole lines are kept and nothing else is."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest

from mixlm_rerank import ScoredDoc
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.ranked import Record, Timed

EXACT = [1 / 3, -0.0, 1e-310, 2.0**60 + 1]
COSTS = {"peak_memory_bytes": 5, "build_seconds": None}


def timed(*scores: float, docid: str = "d") -> Timed:
    docs = [ScoredDoc(f"{docid}{rank}", score, rank, -score) for rank, score in enumerate(scores, 1)]
    return Timed(docs, 0.1 * len(scores))


def recorded(path: Path, rows: dict[str, Timed], key: str = "key") -> None:
    record = Record(path, key)
    for qid, row in rows.items():
        record.add(qid, row)
    record.close()


def reopened(path: Path, key: str = "key") -> tuple[dict[str, Timed], dict[str, object] | None]:
    record = Record(path, key)
    record.close()
    return record.ranked, record.costs


ROWS = {"q1": timed(*EXACT), "q\N{SNOWMAN} 2\u2028": timed(1.0, docid="\ud800\x1c"), "q3": timed(2.0, 1.0)}


def test_rankings_come_back_exactly(tmp_path: Path) -> None:
    recorded(tmp_path / "new" / "a.jsonl", ROWS)
    assert reopened(tmp_path / "new" / "a.jsonl") == (ROWS, None)
    record = Record(tmp_path / "new" / "a.jsonl", "key")
    record.finish(COSTS)
    record.close()
    assert reopened(tmp_path / "new" / "a.jsonl") == (ROWS, COSTS)


def test_cut_off_anywhere_it_keeps_the_whole_lines_and_goes_on(tmp_path: Path) -> None:
    recorded(tmp_path / "whole", ROWS)
    whole = (tmp_path / "whole").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:size])
        kept = max(0, sum(end <= size for end in ends) - 1)  # the first line is the key
        assert list(reopened(path)[0].items()) == list(ROWS.items())[:kept]
        recorded(path, dict(list(ROWS.items())[kept:]))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("lost", [b"\0" * 20 + b"\n", b"\xff\n", b"[1]\n", b"\n"])
def test_a_line_lost_in_a_power_failure_is_dropped_with_what_follows(tmp_path: Path, lost: bytes) -> None:
    recorded(tmp_path / "a", ROWS)
    lines = (tmp_path / "a").read_bytes().splitlines(keepends=True)
    (tmp_path / "a").write_bytes(b"".join([*lines[:2], lost, *lines[3:]]))
    assert list(reopened(tmp_path / "a")[0]) == ["q1"]
    assert (tmp_path / "a").read_bytes() == b"".join(lines[:2])


@pytest.mark.parametrize("other", ["key 2", "", 'ke"y'])
def test_another_key_begins_anew(tmp_path: Path, other: str) -> None:
    recorded(tmp_path / "a", ROWS)
    assert reopened(tmp_path / "a", other) == ({}, None)
    assert reopened(tmp_path / "a", "key") == ({}, None)  # what was there is gone


@pytest.mark.parametrize("content", [b"", b"no record", b"\x00\n\x00", b'{"key"'])
def test_a_file_of_something_else_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    recorded(tmp_path / "a", ROWS)
    assert reopened(tmp_path / "a") == (ROWS, None)


@pytest.mark.parametrize("place", ["folder", "file/record"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"cannot write {tmp_path / place}: "):
        Record(tmp_path / place, "key")
    assert (tmp_path / "file").read_text() == "mine"


def test_on_a_full_disk_ranked_queries_are_safe_and_the_mend_is_said(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; only a child process can take it upon itself."""
    path = tmp_path / "record"
    rows = {f"q{number}": timed(*EXACT) for number in range(50)}
    child = os.fork()
    if not child:
        status = 1
        try:
            status = _write_until_full(path, rows, tmp_path / "said")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "closing raised, or nothing was said"
    kept, _ = reopened(path)
    assert kept == dict(list(rows.items())[: len(kept)]) and 0 < len(kept) < 50
    told = (tmp_path / "said").read_text()
    assert told.startswith(f"cannot write {path}: File too large; {len(kept)} ranked queries are safe in it: ")
    recorded(path, {qid: row for qid, row in rows.items() if qid not in kept})
    assert reopened(path)[0] == rows


def _write_until_full(path: Path, rows: dict[str, Timed], said: Path) -> int:
    record = Record(path, "key")
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    message = _refused(record, list(rows.items()))
    record.close()
    said.write_text(message)
    return 0 if message else 1


def _refused(record: Record, rows: Sequence[tuple[str, Timed]]) -> str:
    try:
        for qid, row in rows:
            record.add(qid, row)
    except InputError as error:
        return str(error)
    return ""
