"""Corpora come in many dialects of JSONL; all give documents with str docids, and errors name file and line."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import JsonlDocs, TrecDocs, TrecQrels
from ir_datasets.util import LocalDownload

from mixlm_rerank import Document
from mixlm_rerank.data import open_corpus
from mixlm_rerank.errors import InputError, MissingDependency


@pytest.fixture
def corpus(tmp_path: Path) -> Callable[..., list[Document]]:
    """``corpus(line, line)``: the documents of a JSONL file with these lines (objects, or raw text)."""

    def read(*rows: Any) -> list[Document]:
        path = tmp_path / "corpus.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return list(open_corpus(str(path)))

    return read


@pytest.mark.parametrize("docid_key", ["_id", "id", "docid"])
@pytest.mark.parametrize("text_key", ["text", "contents", "segment", "body"])
def test_keys_of_every_dialect(corpus: Any, docid_key: str, text_key: str) -> None:
    documents = corpus({docid_key: "d1", text_key: "It barks."}, {text_key: "Cats.", "title": "Cat", docid_key: "d2"})
    assert documents == [Document("d1", "It barks."), Document("d2", "Cats.", "Cat")]


@pytest.mark.parametrize("title", [None, ""])
def test_an_empty_title_is_no_title(corpus: Any, title: str | None) -> None:
    assert corpus({"_id": "d1", "text": "It barks.", "title": title})[0].content == "It barks."


@pytest.mark.parametrize(("docid", "expected"), [(7, "7"), (0, "0"), ("007", "007"), ("d 1", "d 1")])
def test_docids_become_str(corpus: Any, docid: object, expected: str) -> None:
    assert corpus({"_id": docid, "text": "text"})[0].docid == expected


def test_empty_text_is_kept_for_the_builder_to_judge(corpus: Any) -> None:
    assert corpus({"_id": "d1", "text": ""}) == [Document("d1", "")]


def test_bom_crlf_blank_lines_and_unicode_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    separator = "\u2028"  # no line end in JSONL
    path.write_bytes(f'\ufeff{{"id":1,"text":"é{separator}x"}}\r\n\r\n  \r\n{{"id":2,"text":"b"}}'.encode())
    assert list(open_corpus(str(path))) == [Document("1", f"é{separator}x"), Document("2", "b")]


def test_a_gzip_reads_like_the_file_in_it(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress('\ufeff{"id": 1, "text": "é"}\r\n{"id": 2, "text": "b"}\n'.encode()))
    assert list(open_corpus(str(path))) == [Document("1", "é"), Document("2", "b")]


def test_a_corpus_can_be_iterated_again(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": 1, "text": "a"}\n')
    documents = open_corpus(str(tmp_path / "corpus.jsonl"))
    assert list(documents) == list(documents) == [Document("1", "a")]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_beir_folder(tmp_path: Path, name: str) -> None:
    line = b'{"_id": "d1", "title": "Cat", "text": "Cats.", "metadata": {"url": "x"}}\n'
    (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith("gz") else line)
    assert list(open_corpus(str(tmp_path))) == [Document("d1", "Cats.", "Cat")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 2, "text": ', r"line 3: not valid JSON \(.* at column \d+\)"),
        ("not JSON", "line 3: not valid JSON"),
        ('["id", "text"]', "line 3: expected a JSON object, not list"),
        ("null", "line 3: expected a JSON object, not NoneType"),
        ({"text": "x"}, r"line 3: no docid \(expected one of the keys _id, id, docid; found \['text'\]\)"),
        ({"id": None, "text": "x"}, "line 3: no docid"),
        ({"id": 1.5, "text": "x"}, "line 3: no docid"),
        ({"id": True, "text": "x"}, "line 3: no docid"),
        ({"id": 2, "abstract": "x"}, r"line 3: no text \(expected .* found \['abstract', 'id'\]\)"),
        ({"id": 2, "text": None}, "line 3: no text"),
        ({"id": 2, "text": 5}, "line 3: text and title must be strings, not int, str"),
        ({"id": 2, "text": ["x"]}, "line 3: text and title must be strings, not list, str"),
        ({"id": 2, "text": "x", "title": 5}, "line 3: text and title must be strings, not str, int"),
    ],
    ids=str,
)
def test_a_bad_line_is_named_by_file_and_number(corpus: Any, tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}/corpus.jsonl, {message}"):
        corpus({"id": 1, "text": "x"}, "", line, {"id": 3, "text": "x"})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("latin.jsonl", '{"id": 1, "text": "é"}\n'.encode("latin-1"), "after line 0: not UTF-8"),
        (
            "cut.jsonl.gz",
            gzip.compress(b'{"id": 1, "text": "x"}\n' * 999, mtime=0)[:-20],
            "cut.jsonl.gz cannot be read: ",
        ),
        ("plain.jsonl.gz", b'{"id": 1, "text": "x"}\n', "plain.jsonl.gz cannot be read: Not a gzipped file"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(open_corpus(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["corpus.json", "corpus.txt", "corpus"])
def test_jsonl_is_told_by_its_suffix_or_its_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('\ufeff\n{"id":\t1, "text": "a"}\n')
    assert list(open_corpus(str(tmp_path / name))) == [Document("1", "a")]


def test_no_corpus_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without corpus.jsonl"):
        open_corpus(str(tmp_path))
    with pytest.raises(InputError, match=r"no corpus at '.*nowhere' \(a JSONL file, a BEIR folder, irds:DATASET"):
        open_corpus(str(tmp_path / "nowhere"))


class TitleDoc(NamedTuple):
    doc_id: str
    text: str
    title: str

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class UrlDoc(NamedTuple):
    doc_id: str
    url: str
    body: str


class PartsDoc(NamedTuple):
    doc_id: str
    first: str
    second: str

    def default_text(self) -> str:
        return f"{self.first} {self.second}"


@pytest.mark.parametrize(
    ("doc_class", "row", "expected"),
    [
        (TitleDoc, {"doc_id": "d1", "text": "Cats.", "title": "Cat"}, Document("d1", "Cats.", "Cat")),
        (TitleDoc, {"doc_id": "d1", "text": "", "title": "Cat"}, Document("d1", "", "Cat")),
        (UrlDoc, {"doc_id": "d1", "url": "u", "body": "Cats."}, Document("d1", "Cats.")),
        (PartsDoc, {"doc_id": "d1", "first": "Cats", "second": "sleep."}, Document("d1", "Cats sleep.")),
    ],
    ids=["title and text", "title only", "body", "parts"],
)
def test_an_ir_datasets_corpus(tmp_path: Path, request: Any, doc_class: Any, row: Any, expected: Document) -> None:
    path, name = tmp_path / "docs.jsonl", f"mixlm-test-{request.node.callspec.id.replace(' ', '-')}"
    path.write_text(json.dumps(row) + "\n")
    download = LocalDownload(path, mkdir=False)
    docs = JsonlDocs(download, doc_cls=doc_class, docstore_path=tmp_path / "store")
    ir_datasets.registry.register(name, Dataset(docs))
    documents = open_corpus(f"irds:{name}")
    assert list(documents) == list(documents) == [expected]


def test_an_ir_datasets_corpus_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that ir_datasets wants to be put somewhere, and formats that need more than ir_datasets."""
    missing = JsonlDocs(LocalDownload(tmp_path / "nowhere.jsonl", mkdir=False), docstore_path=tmp_path / "store")
    ir_datasets.registry.register("mixlm-test-missing", Dataset(missing))
    with pytest.raises(InputError, match=r"ir_datasets cannot read 'mixlm-test-missing' \(FileNotFoundError: "):
        list(open_corpus("irds:mixlm-test-missing"))
    (tmp_path / "docs").write_text("<DOC>\n<DOCNO>1</DOCNO>\n</DOC>\n")
    docs = TrecDocs(LocalDownload(tmp_path / "docs", mkdir=False), docstore_path=tmp_path / "trec-store")
    ir_datasets.registry.register("mixlm-test-soup", Dataset(docs))
    monkeypatch.setitem(sys.modules, "bs4", None)
    with pytest.raises(MissingDependency, match="cannot read 'mixlm-test-soup': .*pip install"):
        list(open_corpus("irds:mixlm-test-soup"))


def test_ir_datasets_without_such_a_dataset_or_without_documents(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ir_datasets knows no dataset 'mixlm-test-unknown'"):
        open_corpus("irds:mixlm-test-unknown")
    (tmp_path / "qrels").write_text("q1 0 d1 1\n")
    judgments = TrecQrels(LocalDownload(tmp_path / "qrels", mkdir=False), {})
    ir_datasets.registry.register("mixlm-test-no-docs", Dataset(judgments))
    with pytest.raises(InputError, match="'mixlm-test-no-docs' has no documents"):
        open_corpus("irds:mixlm-test-no-docs")
