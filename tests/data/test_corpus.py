"""Corpora come in many dialects of JSONL; all give documents with str docids, and errors name file and line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
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


TWO = '\ufeff{"id": 1, "text": "é"}\r\n{"id": 2, "text": "b"}\n'


@pytest.mark.parametrize("name", ["corpus.jsonl.gz", "CORPUS.JSONL.GZ", "corpus", "corpus.jsonl"])
@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_compression_and_encoding_are_told_by_content(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes], encoding: str
) -> None:
    (tmp_path / name).write_bytes(compress(TWO.encode(encoding)))
    assert list(open_corpus(str(tmp_path / name))) == [Document("1", "é"), Document("2", "b")]


def test_null_counts_as_absent(corpus: Any) -> None:
    assert corpus({"_id": None, "id": "d1", "text": None, "contents": "x"}) == [Document("d1", "x")]


def test_a_corpus_can_be_iterated_again(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": 1, "text": "a"}\n')
    documents = open_corpus(str(tmp_path / "corpus.jsonl"))
    assert list(documents) == list(documents) == [Document("1", "a")]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_beir_folder(tmp_path: Path, name: str) -> None:
    line = b'{"_id": "d1", "title": "Cat", "text": "Cats.", "metadata": {"url": "x"}}\n'
    (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith("gz") else line)
    assert list(open_corpus(str(tmp_path))) == [Document("d1", "Cats.", "Cat")]


def test_a_beir_folder_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04")
    with pytest.raises(InputError, match="corpus.jsonl.zst is compressed by zstd"):
        list(open_corpus(str(tmp_path)))


@pytest.mark.parametrize("arguments", [(None, "text"), (7, "text"), ("d", None), ("d", "text", 5)])
def test_a_document_is_made_of_strings(arguments: Any) -> None:
    with pytest.raises(InputError, match="docid, text and title of a Document must be strings, not"):
        Document(*arguments)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 2, "text": ', r"line 3: not valid JSON \(.* at column \d+\)"),
        ("not JSON", "line 3: not valid JSON"),
        ('["id", "text"]', "line 3: expected a JSON object, not list"),
        ("null", "line 3: expected a JSON object, not NoneType"),
        ('{"id": 1' + 5000 * "0" + ', "text": ""}', r"line 3: not valid JSON \(Exceeds the limit"),
        ('{"id": 2, "text": ' + 100_000 * "[", r"line 3: not valid JSON \(maximum recursion depth"),
        ({"text": "x"}, r"line 3: expected a docid \(a string or an integer under .*\); found text \(str\)"),
        ({"id": None, "text": "x"}, r"line 3: expected a docid .* found id \(null\), text \(str\)"),
        ({"id": 1.0, "text": "x"}, r"line 3: expected a docid .* found id \(float\)"),
        ({"id": True, "text": "x"}, r"line 3: expected a docid .* found id \(bool\)"),
        ({"id": "", "text": "x"}, "line 3: expected a docid"),
        ({"id": 2, "abstract": "x"}, r"line 3: expected a text .* found id \(int\), abstract \(str\)"),
        ({"id": 2, "text": None}, r"line 3: expected a text .* found id \(int\), text \(null\)"),
        ({"id": 2, "text": 5}, r"line 3: expected a text .* found .* text \(int\)"),
        ({"id": 2, "text": ["x"]}, r"line 3: expected a text .* found .* text \(list\)"),
        ({"id": 2, "text": "x", "title": 5}, r"line 3: expected a text .* title \(a string\); found .* title \(int\)"),
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
        ("broken.jsonl", b"\x1f\x8bno", "broken.jsonl cannot be read: "),
        (
            "corpus.jsonl.zst",
            b"\x28\xb5\x2f\xfd\x04",
            "corpus.jsonl.zst is compressed by zstd: unpack it first",
        ),
        ("corpus.jsonl", b"PK\x03\x04", "corpus.jsonl is a zip archive: unpack it first"),
        ("docs.Z", b"\x1f\x9d\x90", "docs.Z is compressed by compress: unpack it first"),
        ("c.tar.gz", gzip.compress(b"c.tsv" + bytes(300), mtime=0), r"c.tar.gz is no text: .* archive \(tar\)"),
        ("utf16.jsonl", '{"id": 1, "text": "x"}\n'.encode("utf-16-le"), r"utf16.jsonl is no text: .* UTF-16 \(iconv"),
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
    with pytest.raises(MissingDependency, match="cannot read 'mixlm-test-soup': .*(bs4|beautifulsoup4)"):
        list(open_corpus("irds:mixlm-test-soup"))


def test_ir_datasets_without_such_a_dataset_or_without_documents(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ir_datasets knows no dataset 'mixlm-test-unknown'"):
        open_corpus("irds:mixlm-test-unknown")
    (tmp_path / "qrels").write_text("q1 0 d1 1\n")
    judgments = TrecQrels(LocalDownload(tmp_path / "qrels", mkdir=False), {})
    ir_datasets.registry.register("mixlm-test-no-docs", Dataset(judgments))
    with pytest.raises(InputError, match="'mixlm-test-no-docs' has no documents"):
        open_corpus("irds:mixlm-test-no-docs")
