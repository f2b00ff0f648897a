"""TREC's SGML: collections in the forms of several decades, topics, and everything malformed named by file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from ir_datasets.formats import TrecDocs, TrecQueries
from ir_datasets.util import LocalDownload

from mixlm_rerank import Document
from mixlm_rerank.data import open_corpus, read_topics
from mixlm_rerank.errors import InputError

COLLECTION = """<DOC>
<DOCNO> LA-1 </DOCNO>
<DOCID> 17 </DOCID>
<DATE><P>May 1, 1990</P></DATE>
<HEADLINE>
<P>
Dogs &amp; the moon
</P>
</HEADLINE>
<TEXT>
<P>
A dog barks at
the moon &lt;loudly&gt;.
</P>

<!-- PJG STAG 4700 -->
<P>
It is 1 < 2 dogs.
</P>
</TEXT>
</DOC>

<DOC>
<DOCNO> LA-2 </DOCNO>
<TEXT>
Cats sleep.
</TEXT>
</DOC>
"""
DOCUMENTS = [
    Document("LA-1", "A dog barks at the moon <loudly>. It is 1 < 2 dogs.", "Dogs & the moon"),
    Document("LA-2", "Cats sleep."),
]
TOPICS = """
<top>

<num> Number: 301
<title> International
Organized   Crime &amp; dogs

<desc> Description:
Identify organizations.

<narr> Narrative:
A relevant document must name one.

</top>

<top>
<num> Number: 302
<title> Topic: Cats

<desc> Description:
Is it spreading?

<narr> Narrative:
Relevant documents tell.
</top>
"""
WINDOWS = b"\xef\xbb\xbf" + COLLECTION.replace("\n", "\r\n").encode()


def read(path: Path, text: str | bytes) -> list[Document]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(open_corpus(str(path)))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("la010190", COLLECTION.encode()),
        ("la.sgml", WINDOWS),
        ("la.gz", gzip.compress(COLLECTION.encode(), mtime=0)),
        ("la.txt", COLLECTION.rstrip().encode()),
        ("la.trec", COLLECTION.lower().encode()),
    ],
    ids=["Unix", "BOM and CRLF", "gzip", "no last line end", "lower case"],
)
def test_a_file(tmp_path: Path, name: str, data: bytes) -> None:
    expected = DOCUMENTS
    if name == "la.trec":
        expected = [Document(d.docid.lower(), d.text.lower(), d.title.lower()) for d in DOCUMENTS]
    assert read(tmp_path / name, data) == expected


def test_a_folder_of_files_at_any_depth(tmp_path: Path) -> None:
    """Sorted; linked folders are followed; hidden files and TREC's own notes are no documents."""
    folder = tmp_path / "disk5"
    elsewhere = tmp_path / "elsewhere"
    for place, name, docid in ((folder / "b", "f1", "3"), (folder, "f2.gz", "1"), (elsewhere, "f3", "4")):
        place.mkdir(exist_ok=True, parents=True)
        data = f"<DOC><DOCNO>{docid}</DOCNO><TEXT>t</TEXT></DOC>".encode()
        (place / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (folder / "c").symlink_to(elsewhere)
    (folder / "empty").touch()
    for note in ("README.txt", "readchg", ".DS_Store"):
        (folder / note).write_text("Notes <DOC>")
    corpus = open_corpus(str(folder))
    assert [document.docid for document in corpus] == ["1", "3", "4"]
    assert list(corpus) == list(corpus)


def test_titles_and_leads_of_several_newspapers(tmp_path: Path) -> None:
    text = (
        "<DOC><DOCNO>AP-1</DOCNO><HEAD>One</HEAD><HEAD>Two</HEAD><TEXT>a</TEXT></DOC>\n"
        "<DOC><DOCNO>WSJ-1</DOCNO><HL>Head\nline</HL><LP>lead</LP><TEXT>b</TEXT></DOC>\n"
        '<DOC><DOCNO>SJM-1</DOCNO><LEADPARA>lead</LEADPARA><TEXT lang="en">c</TEXT></DOC>\n'
    )
    assert read(tmp_path / "news", text) == [
        Document("AP-1", "a", "One Two"),
        Document("WSJ-1", "lead b", "Head line"),
        Document("SJM-1", "lead c"),
    ]


def test_where_nothing_is_marked_as_text_all_else_is(tmp_path: Path) -> None:
    page = """<DOC><DOCNO>GX-1</DOCNO><DOCHDR>
http://a.gov/ 200
</DOCHDR>
<html><head><title>Dogs</title><style>p {x}</style></head><body><script>var a = "<p>";</script>
<p class="x">A dog<br>barks&nbsp;.</p></body></html>
</DOC>"""
    cranfield = "<doc><docno>1</docno><title>wings</title><author>brenckman</author><w>slipstream</w></doc>"
    assert read(tmp_path / "web", page) == [Document("GX-1", "A dog barks .", "Dogs")]
    assert read(tmp_path / "cranfield", cranfield) == [Document("1", "brenckman slipstream", "wings")]


def test_a_document_without_text_is_kept_for_the_builder_to_judge(tmp_path: Path) -> None:
    assert read(tmp_path / "f", "<DOC><DOCNO>1</DOCNO><TEXT></TEXT></DOC>") == [Document("1", "")]


def test_it_reads_what_ir_datasets_reads_of_a_tidy_file(tmp_path: Path) -> None:
    tidy = "".join(
        f"<DOC>\n<DOCNO> {n} </DOCNO>\n<TEXT>\nDocument {n},\nof two lines.\n</TEXT>\n</DOC>\n" for n in "abc"
    )
    ours = read(tmp_path / "f", tidy)
    theirs = list(TrecDocs(LocalDownload(tmp_path / "f", mkdir=False), parser="text").docs_iter())
    assert [(d.docid, d.text.split()) for d in ours] == [(d.doc_id, d.text.split()) for d in theirs]
    assert len(ours) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<DOC>\n<DOCNO>1</DOCNO>\n</DOC>\n\nstray\n", "f, line 5: expected <DOC>, found 'stray'"),
        ("<DOCS>\n<DOC>\n", "f, line 1: expected <DOC>, found '<DOCS>'"),
        ("<DOC><DOCNO>1</DOCNO>\n</DOC>\n<DOC>\n<DOCNO>2</DOCNO>\n", "f, line 3: this <DOC> is not closed"),
        ("<DOC>\n<TEXT>a</TEXT>\n</DOC>\n", "f, line 1: expected one <DOCNO> in this <DOC>, found none"),
        ("<DOC>\n<DOCNO> </DOCNO>\n</DOC>\n", "f, line 1: expected one <DOCNO> in this <DOC>, found none"),
        (
            "<DOC>\n<DOCNO>1</DOCNO>\n<DOC>\n<DOCNO>2</DOCNO>\n</DOC>\n",
            r"f, line 1: expected one <DOCNO> in this <DOC>, found 2 \(is a </DOC> missing\?\)",
        ),
        ("<DOC>\n<DOCNO>1</DOCNO>\nbête\n</DOC>\n".encode("latin-1"), r"f, after line \d: not UTF-8"),
    ],
)
def test_a_malformed_collection(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "f", text)


def test_a_stranger_in_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("<DOC><DOCNO>1</DOCNO></DOC>")
    (tmp_path / "b.txt").write_text("not a document\n")
    with pytest.raises(InputError, match=f"{tmp_path}/b.txt, line 1: expected <DOC>, found 'not a document'"):
        list(open_corpus(str(tmp_path)))


def test_a_folder_without_documents(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a document\n")
    with pytest.raises(InputError, match=r"is a folder without corpus.jsonl, and not one of TREC files"):
        open_corpus(str(tmp_path))


@pytest.mark.parametrize(
    "data",
    [TOPICS.encode(), b"\xef\xbb\xbf" + TOPICS.replace("\n", "\r\n").encode(), TOPICS.lower().encode()],
    ids=["Unix", "BOM and CRLF", "lower case"],
)
def test_topics(tmp_path: Path, data: bytes) -> None:
    for name, written in (("topics.txt", data), ("topics.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(written)
        topics = read_topics(tmp_path / name)
        titles = {"301": "International Organized Crime & dogs", "302": "Cats"}
        assert {qid: text.lower() for qid, text in topics.items()} == {q: t.lower() for q, t in titles.items()}


def test_topics_are_those_of_ir_datasets(tmp_path: Path) -> None:
    (tmp_path / "topics").write_text(TOPICS.replace("&amp; ", ""))
    theirs = TrecQueries(LocalDownload(tmp_path / "topics", mkdir=False)).queries_iter()
    assert read_topics(tmp_path / "topics") == {query.query_id: " ".join(query.title.split()) for query in theirs}


@pytest.mark.parametrize(
    ("num", "qid"),
    [
        ("<num> Number: 051", "51"),  # the judgments of TREC-1 say 51
        ("<num> Number: MB001", "MB001"),
        ("<num>007</num>", "007"),
        ("<num> 12 </num>", "12"),
    ],
)
def test_numbers_of_topics(tmp_path: Path, num: str, qid: str) -> None:
    (tmp_path / "topics").write_text(f'<top lang="en">{num}<title>dogs</title></top><top><num>x<title>cats</top>')
    assert read_topics(tmp_path / "topics") == {qid: "dogs", "x": "cats"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<top>\n<num> 1\n</top>\n", "t, line 1: expected <num> and <title> in this <top>"),
        ("<top>\n<title> dogs\n</top>\n", "t, line 1: expected <num> and <title> in this <top>"),
        ("<top>\n<num> Number: \n<title> dogs\n</top>\n", "t, line 1: expected <num> and <title>"),
        ("<top><num>1<title>a</top>\n<top><num>1<title>b</top>\n", "t, line 2: qid '1' occurs twice"),
        ("<top><num>1<title>a</top>\n<top><num>2<title>b\n", "t, line 2: this <top> is not closed"),
        ("<top><num>1<title>a</top>\n<topic/>\n", "t, line 2: expected <top>, found '<topic/>'"),
    ],
)
def test_malformed_topics(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(InputError, match=message):
        read_topics(tmp_path / "t")
