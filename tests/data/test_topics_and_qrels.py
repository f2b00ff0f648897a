"""Topics and judgments: both formats of each, and every malformed line named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mixlm_rerank.data import read_qrels, read_topics
from mixlm_rerank.errors import InputError

TSV = "q1\twho barks\n2\tbread\tand salt \n"
JSONL = '{"_id": "q1", "text": "who barks"}\n{"_id": 2, "text": "bread\\tand salt "}\n'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("topics.tsv", TSV.encode()),
        ("topics.txt", b"\xef\xbb\xbf" + TSV.replace("\n", "\r\n").encode()),
        ("topics.tsv.gz", gzip.compress(TSV.encode(), mtime=0)),
        ("queries.jsonl", JSONL.encode()),
        ("queries.json", JSONL.replace("_id", "qid").replace("text", "query").encode()),
        ("queries.jsonl.gz", gzip.compress(JSONL.replace("_id", "id").encode(), mtime=0)),
        ("queries.txt", b"\xef\xbb\xbf\r\n" + JSONL.replace("\n", "\r\n").encode()),
    ],
)
def test_topics_of_either_format(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read_topics(tmp_path / name) == {"q1": "who barks", "2": "bread\tand salt "}


@pytest.mark.parametrize("name", ["queries.jsonl", "queries.jsonl.gz"])
def test_topics_of_a_beir_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(JSONL.encode()) if name.endswith("gz") else JSONL.encode())
    assert list(read_topics(tmp_path)) == ["q1", "2"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "q1\tdog\nq2 cat\n", "t.tsv, line 2: expected qid <tab> query"),
        ("t.tsv", "\tdog\n", "t.tsv, line 1: expected qid <tab> query"),
        ("t.tsv", "q1\tdog\nq2\tcat\nq1\tdog\n", "t.tsv, line 3: qid 'q1' occurs twice"),
        ("t.tsv", "\n", "t.tsv holds no queries"),
        ("t.jsonl", '{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}\n', "t.jsonl, line 2: qid '1' occurs twice"),
        ("t.jsonl", '{"_id": "q1"}\n', r"t.jsonl, line 1: expected .* found _id \(str\)"),
        ("t.jsonl", '{"_id": null, "text": "a"}\n', r"t.jsonl, line 1: expected .* found _id \(null\), text \(str\)"),
        ("t.jsonl", '{"_id": 1.0, "text": null}\n', r"t.jsonl, line 1: expected .* _id \(float\), text \(null\)"),
        ("t.jsonl", '{"_id": ' + 5000 * "1" + "}", r"t.jsonl, line 1: not valid JSON \(Exceeds the limit"),
        ("t.jsonl", "q1\tdog\n", "t.jsonl, line 1: not valid JSON"),
    ],
)
def test_bad_topics(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_topics(tmp_path / name)


def test_an_empty_query_is_kept_for_the_reranker_to_judge(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("q1\tdog\nq2\t \nq3\t\n")
    assert read_topics(tmp_path / "t.tsv") == {"q1": "dog", "q2": " ", "q3": ""}


WEB = """<?xml version="1.0"?>
<webtrack2012>
  <topic number="151" type="faceted">
    <query>403b &amp; dogs</query>

    <description>What is a 403b plan?</description>
    <subtopic number="1" type="nav">Find it.</subtopic>
  </topic>
  <topic number="152" type="x"><query>
    a
    b</query></topic>
</webtrack2012>
"""
COVID = """<topics task="COVIDSearch 2020" batch="5">
  <topic number="1"><query>virus origin</query><question>what is it?</question><narrative>n</narrative></topic>
</topics>"""
MISINFORMATION = """<topics>
  <topic><number>1</number><title>ibuprofen</title><description>d</description><answer>no</answer></topic>
  <topic><number>101</number><query>ankle brace</query><description>d</description></topic>
</topics>"""


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        (WEB, {"151": "403b & dogs", "152": "a b"}),
        (COVID, {"1": "virus origin"}),
        (MISINFORMATION, {"1": "ibuprofen", "101": "ankle brace"}),
    ],
    ids=["web track", "TREC-COVID", "misinformation"],
)
def test_trec_topics_in_xml(tmp_path: Path, text: str, topics: dict[str, str]) -> None:
    (tmp_path / "topics.xml").write_text(text)
    assert read_topics(tmp_path / "topics.xml") == topics


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n<topics>\n\n<topic number='1'><query>a & b</query></topic></topics>",
            " is not valid XML .*: line 4",
        ),
        ("<DOC><DOCNO>1</DOCNO></DOC>", " holds no topics but <DOC>; expected <topic number="),
        (COVID.replace("query", "q"), ", topic 1 has <q>, <question>, <narrative>; expected .* a <query> or <title>"),
        (COVID.replace("number", "n"), ", topic 1 has <query>, .*; expected <topic number="),
    ],
)
def test_other_xml_is_told_what_is_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "topics.xml").write_text(text)
    with pytest.raises(InputError, match=f"topics.xml{message}"):
        read_topics(tmp_path / "topics.xml")


def test_no_topics_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without queries.jsonl"):
        read_topics(tmp_path)
    with pytest.raises(InputError, match="no such file: .*nowhere.tsv"):
        read_topics(tmp_path / "nowhere.tsv")


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 2\nq1 0 d2 0\n7 0 d1 -1\n",
        "q1\t0\td1\t2\r\nq1\t0\td2\t0\r\n\r\n7\t0\td1\t-1\r\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n7\td1\t-1\n",
        "\ufeffquery-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n7\td1\t-1\n",
        "q1 0 d1 2\nq1 0 d1 2\nq1 0 d2 0\n7 0 d1 -1\n",
    ],
    ids=["TREC", "TREC with tabs and CRLF", "BEIR", "BEIR with BOM", "judged twice alike"],
)
def test_qrels_of_either_format(tmp_path: Path, text: str) -> None:
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2, "d2": 0}, "7": {"d1": -1}}


def test_docids_of_beir_may_hold_spaces(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("query-id\tcorpus-id\tscore\nq 1\ta dog barks\t2\n")
    assert read_qrels(tmp_path / "qrels") == {"q 1": {"a dog barks": 2}}


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbfq1 0 d1 -2\r\nq1 0 d2 1\r\n", gzip.compress(b"q1 0 d1 -2\nq1 0 d2 1\n", mtime=0)]
)
def test_negative_grades_are_kept(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / ("qrels.gz" if data.startswith(b"\x1f") else "qrels")
    path.write_bytes(data)
    assert read_qrels(path) == {"q1": {"d1": -2, "d2": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d1 1\nq1 d2\n", "qrels, line 2: 2 columns, expected 4"),
        ("q1 0 d1 1 x\n", "qrels, line 1: 5 columns, expected 4"),
        ("q1 0 d1 high\n", "qrels, line 1: the grade 'high' is not an integer"),
        ("q1 0 d1 1.5\n", "qrels, line 1: the grade '1.5' is not an integer"),
        ("q1\td1\t1\nquery-id\tcorpus-id\tscore\n", "qrels, line 2: the grade 'score' is not an integer"),
        ("q1 0 d1 1\nq2 0 d1 0\nq1 0 d1 0\n", "qrels, line 3: document 'd1' has two different grades for query 'q1'"),
        ("query-id\tcorpus-id\tscore\n", "qrels holds no judgments"),
        ("", "qrels holds no judgments"),
    ],
)
def test_bad_qrels(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "qrels").write_text(text)
    with pytest.raises(InputError, match=message):
        read_qrels(tmp_path / "qrels")
