"""``eval interleave``: the page's commands, what is said and written, and bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[[str], Any]
PAGE = Path(__file__).parent.parent.parent / "docs" / "evaluation.md"
COMMAND = "eval interleave bm25.trec mixlm.trec --qrels qrels.txt --sessions 2000"


def trec(order: str) -> str:
    return "".join(f"q{query} Q0 {doc} {n} {-n} x\n" for query in range(9) for n, doc in enumerate(order, 1))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, judgments of all but one document, and a log of 9 queries; ``mixlm.trec`` is better."""
    monkeypatch.chdir(tmp_path)
    Path("bm25.trec").write_text(trec("abcd"))
    Path("mixlm.trec").write_text(trec("dcba"))
    Path("qrels.txt").write_text("".join(f"q{n} 0 d 2\nq{n} 0 c 1\nq{n} 0 a 0\n" for n in range(9)))
    log = "".join(f"s{n}\tq{n}\ta d c\td\ns{n}\tq{n}\td a c\td c\ns{n}\tq{n}\tc a d\t\n" for n in range(9))
    Path("clicks.tsv").write_text(f"session\tquery\tshown\tclicked\n{log}")
    return tmp_path


def test_the_pages_commands_run(place: Path, mixlm: Command) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Would users prefer it?")[2]
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    commands = [line.removeprefix("mixlm-rerank ") for line in block.splitlines()]
    said = [mixlm(command) for command in commands]
    assert [(done.code, done.err) for done in said] == [(0, "")] * 3
    assert (place / "result.json").exists()


def test_every_click_model_has_its_row_and_both_runs_are_named(place: Path, mixlm: Command) -> None:
    lines = mixlm(COMMAND).out.splitlines()
    assert lines[:4] == [
        "A: bm25.trec",
        "B: mixlm.trec",
        "team-draft, first 10 documents (75% judged), 2,000 sessions of 9 queries",
        "",
    ]
    head, *rows = (re.split(r"\s{2,}", line) for line in lines[4:9])
    assert head == ["clicks", "A wins", "B wins", "ties", "B preferred", "95% interval", "sessions needed"]
    assert [row[0] for row in rows] == ["perfect", "navigational", "informational", "position-based"]
    for row in rows:
        assert sum(int(cell.replace(",", "")) for cell in row[1:4]) == 2000
        low, high = map(float, row[5].split(" to "))
        assert 0.5 < low <= float(row[4]) <= high and int(row[6].replace(",", "")) > 1


def test_json_holds_what_is_shown_and_how_it_came_about(place: Path, mixlm: Command) -> None:
    done = mixlm(f"{COMMAND} --method balanced --clicks perfect --seed 7 --depth 3 --json out.json")
    found = json.loads((place / "out.json").read_text())
    (own,) = [found.pop("clicks")]
    assert found == {
        **{"a": "bm25.trec", "b": "mixlm.trec", "qrels": "qrels.txt", "log": None},
        **{"method": "balanced", "depth": 3, "sessions": 2000, "seed": 7, "queries": 9, "known": pytest.approx(4 / 6)},
    }
    assert list(own) == ["perfect"] and f"{own['perfect']['b']:,}" in done.out
    assert own["perfect"]["preference"] == (own["perfect"]["b"] + own["perfect"]["ties"] / 2) / 2000


def test_a_log_brings_its_own_users(place: Path, mixlm: Command) -> None:
    """Its pages have three documents, b is none of them, and d is clicked on most."""
    done = mixlm("eval interleave bm25.trec mixlm.trec --log clicks.tsv --json out.json")
    assert "first 3 documents (67% in the log), 100,000 sessions of 9 queries" in done.out
    (own,) = json.loads((place / "out.json").read_text())["clicks"].values()
    assert own["low"] > 0.5


def test_no_preference_has_no_number_of_sessions(place: Path, mixlm: Command) -> None:
    done = mixlm("eval interleave bm25.trec bm25.trec --qrels qrels.txt --method balanced --clicks perfect")
    assert re.split(r"\s{2,}", done.out.splitlines()[5])[3:] == ["100,000", ".500", ".500 to .500", "-"]


@pytest.mark.parametrize(
    ("command", "content", "told"),
    [
        ("bm25.trec mixlm.trec", "", "give either --qrels (judgments) or --log (a click log)"),
        ("bm25.trec mixlm.trec --qrels qrels.txt --log clicks.tsv", "", "give either --qrels (judgments) or --log"),
        ("bm25.trec mixlm.trec --log clicks.tsv --clicks perfect", "", "--clicks goes with --qrels"),
        ("bm25.trec gone.trec --qrels qrels.txt", "", "no such file: gone.trec"),
        ("bm25.trec bad --qrels qrels.txt", "q1 Q0 a 1 nan x\n", "bad, line 1: the score 'nan' is not finite"),
        ("bm25.trec bad --qrels qrels.txt", "z Q0 a 1 1 x\n", "no query is in both runs and judged or logged"),
        ("bm25.trec mixlm.trec --qrels bad", "z 0 a 1\n", "judged or logged: z): do they belong together?"),
        ("bm25.trec mixlm.trec --qrels bad", "q1 0 D1 1\n", "are docids written alike?"),
        ("bm25.trec mixlm.trec --qrels bad", "q1 0 a 0\n", "no document is judged relevant"),
        ("bm25.trec mixlm.trec --log bad", "", "the click log is empty"),
        ("bm25.trec mixlm.trec --log bad", "s\tq1\ta b\tz\n", "bad, line 1: a click on document 'z'"),
        ("bm25.trec mixlm.trec --log bad", "s\tq1\ta b\ta\n", "log sessions in which results were swapped"),
        ("bm25.trec mixlm.trec --log bad", "s\tz\ta b\ta\ns\tz\tb a\t\n", "do they belong together?"),
        ("bm25.trec mixlm.trec --qrels qrels.txt --json gone/out.json", "", "there is no folder gone"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    place: Path, mixlm: Command, command: str, content: str, told: str
) -> None:
    (place / "bad").write_text(content)
    done = mixlm(f"eval interleave {command}")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert told in done.err
