"""MS MARCO's TSV: passages and documents, and every malformed line named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mixlm_rerank import Document
from mixlm_rerank.data import open_corpus
from mixlm_rerank.errors import InputError

PASSAGES = "7\tA dog barks.\nd 8\tCats sleep, é.\n9\t\n"
DOCUMENTS = "D1\thttps://a/b\tDogs\tA dog barks.\nD2\t\t\tCats sleep.\nD3\thttps://c\tOnly a title\t\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("collection.tsv", PASSAGES.encode()),
        ("collection.txt", b"\xef\xbb\xbf" + PASSAGES.replace("\n", "\r\n\r\n").encode()),
        ("collection.tsv.gz", gzip.compress(PASSAGES.encode(), mtime=0)),
        ("collection", PASSAGES.encode()),
    ],
)
def test_passages(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    corpus = open_corpus(str(tmp_path / name))
    assert list(corpus) == [Document("7", "A dog barks."), Document("d 8", "Cats sleep, é."), Document("9", "")]
    assert list(corpus) == list(corpus)


def test_documents_with_url_and_title(tmp_path: Path) -> None:
    (tmp_path / "msmarco-docs.tsv").write_text(DOCUMENTS)
    assert list(open_corpus(str(tmp_path / "msmarco-docs.tsv"))) == [
        Document("D1", "A dog barks.", "Dogs"),
        Document("D2", "Cats sleep."),
        Document("D3", "", "Only a title"),
    ]


def test_the_suffix_comes_before_the_content(tmp_path: Path) -> None:
    """A passage collection may begin with a docid that looks like something else."""
    (tmp_path / "c.tsv").write_text('{"1"}\tdog\n<DOC>\tcat\n')
    assert list(open_corpus(str(tmp_path / "c.tsv"))) == [Document('{"1"}', "dog"), Document("<DOC>", "cat")]


def test_a_carriage_return_belongs_to_the_text(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_bytes(b"1\tA dog\rbarks.\r\n2\tCats.\r\n")
    assert list(open_corpus(str(tmp_path / "c.tsv"))) == [Document("1", "A dog\rbarks."), Document("2", "Cats.")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 dog\n", r"line 1: 1 columns, expected 2 \(docid, text\) or 4 \(docid, url, title, body\)"),
        ("1\tdog\ttitle\n", r"line 1: 3 columns, expected 2 \(docid, text\) or 4"),
        ("1\tdog\n\n2\tcat\tsleeps\n", r"line 3: 3 columns, expected 2 \(docid, text\)$"),
        ("1\tdog\n2\tu\tt\tcat\n", r"line 2: 4 columns, expected 2 \(docid, text\)$"),
        ("1\tu\tt\tdog\n2\tcat\n", r"line 2: 2 columns, expected 4 \(docid, url, title, body\)$"),
        ("1\tdog\n \tcat\n", "line 2: no docid in the first column"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.tsv").write_text(text)
    with pytest.raises(InputError, match=f"{tmp_path}/c.tsv, {message}"):
        list(open_corpus(str(tmp_path / "c.tsv")))


def test_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_bytes("1\tdog\n2\tbête\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"c.tsv, after line \d: not UTF-8 .*; convert it"):
        list(open_corpus(str(tmp_path / "c.tsv")))
