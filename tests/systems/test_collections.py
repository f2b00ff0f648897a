"""One collection in every format in use gives the same queries, judgments and documents; whatever lacks is named."""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import JsonlDocs, TrecQrels, TsvQueries
from ir_datasets.util import LocalDownload

from mixlm_rerank import Document
from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.systems.collections import QUERIES_ARE_DOCUMENTS, Collection, open_collection, sampled

DOCUMENTS = [
    Document("d1", "A dog barks at the moon.", "Dogs"),
    Document("007", "Cats sleep all day.", "Cats"),
    Document("3", "Bread is baked from flour.", "Bread"),
]
TOPICS = {"007": "a dog and the moon", "12": "sleep", "q3": "not judged"}
QUERIES = {"007": "a dog and the moon", "12": "sleep"}
# "12" has no relevant document; -2 is spam in TREC's web tracks
QRELS = {"007": {"d1": 2, "007": 0, "3": -2}, "12": {"d1": -2}}
TREC_QRELS = "".join(f"{qid} 0 {docid} {grade}\n" for qid, row in QRELS.items() for docid, grade in row.items())
BEIR_QRELS = "query-id\tcorpus-id\tscore\n" + "".join(
    f"{qid}\t{docid}\t{grade}\n" for qid, row in QRELS.items() for docid, grade in row.items()
)
TSV_TOPICS = "".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items())


def write(path: Path, text: str, windows: bool = False) -> Path:
    """``windows``: with a BOM and CRLF. Gzipped if the name says so."""
    data = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() if windows else text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_json(ids: str, rows: Mapping[str, Mapping[str, str]]) -> str:
    """JSONL; two of the ids are numbers, as in some collections."""
    return "".join(
        json.dumps({ids: int(key) if key in ("3", "12") else key, **row}) + "\n" for key, row in rows.items()
    )


CORPUS_JSONL = as_json("_id", {d.docid: {"title": d.title, "text": d.text} for d in DOCUMENTS})
QUERIES_JSONL = as_json("_id", {qid: {"text": text} for qid, text in TOPICS.items()})


def beir(folder: Path, *, suffix: str = "", windows: bool = False, **parts: str | None) -> Path:
    """A BEIR folder; ``parts`` are the texts of its files by their names, None for none."""
    whole = {"corpus.jsonl": CORPUS_JSONL, "queries.jsonl": QUERIES_JSONL, "qrels/test.tsv": BEIR_QRELS} | parts
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in whole.items():
        if text is not None:
            write(folder / f"{name}{suffix}", text, windows)
    return folder


class Titled(NamedTuple):
    doc_id: str
    title: str
    text: str


def registered(folder: Path, dataset_id: str, *lacking: str, qrels: str = TREC_QRELS) -> str:
    """The source of an ir_datasets dataset that lies in ``folder`` and lacks some of docs, queries, qrels."""
    rows = "".join(json.dumps({"doc_id": d.docid, "title": d.title, "text": d.text}) + "\n" for d in DOCUMENTS)
    files = {"docs": rows, "queries": TSV_TOPICS, "qrels": qrels}
    local = {
        name: LocalDownload(write(folder / f"{name}.txt", text), mkdir=False)
        for name, text in files.items()
        if name not in lacking
    }
    parts: list[Any] = []
    if "docs" in local:
        parts.append(JsonlDocs(local["docs"], doc_cls=Titled, docstore_path=folder / "store"))
    if "queries" in local:
        parts.append(TsvQueries(local["queries"]))
    if "qrels" in local:
        parts.append(TrecQrels(local["qrels"], {}))
    ir_datasets.registry.register(dataset_id, Dataset(*parts))
    return f"irds:{dataset_id}"


def sgml(folder: Path) -> Path:
    for d in DOCUMENTS:
        text = f"<DOC>\n<DOCNO> {d.docid} </DOCNO>\n<HEAD>{d.title}</HEAD>\n<TEXT>\n{d.text}\n</TEXT>\n</DOC>\n"
        write(folder / "disk" / f"f{d.docid}", text)
    return folder


def lucene(folder: Path) -> str:
    from mixlm_rerank.integrations.lucene import build_lucene_index

    build_lucene_index(DOCUMENTS, folder)
    return f"lucene:{folder}"


def tsv(folder: Path, name: str, windows: bool = False) -> Path:
    rows = (f"{d.docid}\thttp://x/{d.docid}\t{d.title}\t{d.text}\n" for d in DOCUMENTS)
    return write(folder / name, "".join(rows), windows)


def trec_topics(path: Path) -> Path:
    rows = (f"<top>\n<num> {qid}\n<title> {text}\n<desc> x\n</top>\n" for qid, text in TOPICS.items())
    return write(path, "".join(rows), windows=True)


# how a collection is opened -> its name
FORMATS: dict[str, tuple[Callable[[Path], tuple[Any, ...]], str]] = {
    "BEIR": (lambda at: (beir(at / "news"),), "news"),
    "BEIR, gzip": (lambda at: (beir(at / "news", suffix=".gz"),), "news"),
    "BEIR, BOM and CRLF": (lambda at: (f"{beir(at / 'news', windows=True)}/",), "news"),
    "ir_datasets": (lambda at: (registered(at, "mixlm-collection/whole"),), "mixlm-collection/whole"),
    "SGML": (lambda at: (sgml(at / "news"), trec_topics(at / "topics.gz"), at / "qrels"), "news"),
    "JSONL": (lambda at: (write(at / "news.jsonl", CORPUS_JSONL), at / "topics", at / "qrels"), "news"),
    "TSV": (lambda at: (tsv(at, "news.tsv", windows=True), at / "topics", at / "qrels"), "news"),
    "TSV, gzip": (lambda at: (tsv(at, "news.tsv.gz"), at / "topics", at / "qrels"), "news"),
    "Lucene": (lambda at: (lucene(at / "news.2026"), at / "topics", at / "qrels"), "news.2026"),
}


def assert_whole(collection: Collection) -> None:
    assert (collection.queries, collection.qrels) == (QUERIES, QRELS)
    assert list(collection.queries) == list(QUERIES)
    corpus = collection.corpus
    assert corpus is not None
    documents = sorted(corpus, key=lambda document: document.docid)
    assert documents == sorted(corpus, key=lambda document: document.docid)  # and again
    assert documents == sorted(DOCUMENTS, key=lambda document: document.docid)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_collection(tmp_path: Path, form: str) -> None:
    """Ids stay what they are, "007" and "12" too; queries without judgments are left out, grades below 0 are not."""
    write(tmp_path / "topics", TSV_TOPICS, windows=True)
    write(tmp_path / "qrels", TREC_QRELS, windows=True)
    make, name = FORMATS[form]
    source, *files = make(tmp_path)
    collection = open_collection(source, **dict(zip(("topics", "qrels"), files, strict=False)))
    assert collection.name == name and not collection.drop_same_id
    assert_whole(collection)


def test_a_folder_is_named_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(beir(tmp_path / "news") / "qrels")
    assert open_collection("..").name == "news"


def test_files_of_ones_own_take_the_place_of_the_sources(tmp_path: Path) -> None:
    topics = write(tmp_path / "mine.tsv", "q9\tmine\nq8\tanother\n")
    qrels = write(tmp_path / "mine.qrels", "q9 0 d1 1\n")
    for source in (beir(tmp_path / "news"), registered(tmp_path / "irds", "mixlm-collection/own")):
        collection = open_collection(source, "no-such-split", topics=topics, qrels=qrels)
        assert (collection.queries, collection.qrels) == ({"q9": "mine"}, {"q9": {"d1": 1}})
        assert [document.docid for document in collection.corpus or ()] == [d.docid for d in DOCUMENTS]


@pytest.mark.parametrize("of", ["BEIR", "ir_datasets"])
def test_a_collection_without_documents(tmp_path: Path, of: str) -> None:
    lacking = {"corpus.jsonl": None}
    source = beir(tmp_path, **lacking) if of == "BEIR" else registered(tmp_path, "mixlm-collection/runs", "docs")
    collection = open_collection(source)
    assert collection.corpus is None
    assert (collection.queries, collection.qrels) == (QUERIES, QRELS)


def test_splits_of_a_folder(tmp_path: Path) -> None:
    """Each has its own judgments, and says so in its name."""
    folder = beir(tmp_path / "news", **{"qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq3\t3\t1\n"})
    dev = open_collection(folder, "dev")
    assert (dev.name, dev.queries, dev.qrels) == ("news dev", {"q3": "not judged"}, {"q3": {"3": 1}})
    assert open_collection(folder).queries == QUERIES
    with pytest.raises(InputError, match=rf"{folder} has no split 'train' in its qrels: there is dev, test"):
        open_collection(folder, "train")


def test_splits_of_an_ir_datasets_id(tmp_path: Path) -> None:
    """Those below an id without judgments; one that has judgments is taken as it is."""
    whole = registered(tmp_path / "whole", "mixlm-splits", "qrels")
    registered(tmp_path / "dev", "mixlm-splits/dev", qrels="q3 0 3 1\n")
    registered(tmp_path / "test", "mixlm-splits/test")
    assert_whole(open_collection(whole))
    assert open_collection(whole).name == "mixlm-splits/test"
    for dev in (open_collection(whole, "dev"), open_collection(f"{whole}/dev"), open_collection(f"{whole}/dev", "dev")):
        assert (dev.name, dev.qrels) == ("mixlm-splits/dev", {"q3": {"3": 1}})
    there = "there is mixlm-splits/dev, mixlm-splits/test"
    with pytest.raises(InputError, match=f"'mixlm-splits' has no judgments for 'train': {there}"):
        open_collection(whole, "train")
    with pytest.raises(InputError, match="irds:mixlm-splits/dev has judgments of its own: leave out the split 'train'"):
        open_collection(f"{whole}/dev", "train")


# What lacks is named


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"qrels/test.tsv": None}, r"news has no judgments \(qrels/test.tsv\): give a file of them as qrels"),
        ({"queries.jsonl": None}, "news is a folder without queries.jsonl"),
        (
            {"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq7\td1\t1\nq8\td1\t1\n"},
            r"news: no query is judged \(queries: 007, 12, q3; judged: q7, q8\): do they belong together\?",
        ),
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\n"}, "test.tsv holds no judgments"),
        (
            {"qrels/test.tsv": BEIR_QRELS + "".join(f"x{n}\td1\t1\n" for n in range(4))},
            r"news: 4 of 6 judged queries have no text \(x0, x1, x2 \.\.\.\): give topics that hold them",
        ),
        ({"qrels/test.tsv": BEIR_QRELS + "12\td2\thigh\n"}, "test.tsv, line 6: the grade 'high' is not an integer"),
        ({"qrels/test.tsv": BEIR_QRELS + "12\td1\t2\n"}, "test.tsv, line 6: document 'd1' has two different grades"),
        ({"queries.jsonl": QUERIES_JSONL + "{}\n"}, "queries.jsonl, line 4: expected"),
        ({"queries.jsonl": QUERIES_JSONL + '{"_id": 12, "text": "x"}\n'}, "line 4: qid '12' occurs twice"),
    ],
)
def test_a_beir_folder_that_lacks_something(tmp_path: Path, parts: dict[str, str | None], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_collection(beir(tmp_path / "news", **parts))


@pytest.mark.parametrize(
    ("name", "lacking", "qrels", "message"),
    [
        ("a", ["queries"], TREC_QRELS, "'mixlm-lacks-a' has no queries: give a file of them as topics"),
        ("b", ["qrels"], "", "'mixlm-lacks-b' has no judgments for 'test': there is none under it either"),
        ("c", [], "q7 0 d1 1\n", r"mixlm-lacks-c: no query is judged \(queries: 007, 12, q3; judged: q7\)"),
        ("d", [], "", r"mixlm-lacks-d: no query is judged \(queries: 007, 12, q3; judged: none\)"),
        ("e", [], "12 0 d1 1\n12 0 d1 0\n", "judgments of 'mixlm-lacks-e': document 'd1' has two different grades"),
    ],
)
def test_an_ir_datasets_id_that_lacks_something(
    tmp_path: Path, name: str, lacking: list[str], qrels: str, message: str
) -> None:
    source = registered(tmp_path, f"mixlm-lacks-{name}", *lacking, qrels=qrels)
    with pytest.raises(InputError, match=message):
        open_collection(source)


def test_a_judged_query_of_ir_datasets_without_text(tmp_path: Path) -> None:
    source = registered(tmp_path, "mixlm-textless", qrels=TREC_QRELS + "q4 0 d1 1\n")
    write(tmp_path / "queries.txt", TSV_TOPICS + "q4\t \n")
    with pytest.raises(InputError, match=r"mixlm-textless: 1 of 3 judged queries have no text \(q4\)"):
        open_collection(source)


@pytest.mark.parametrize("given", [{}, {"topics": "topics"}, {"qrels": "qrels"}])
def test_a_corpus_alone_needs_topics_and_qrels(tmp_path: Path, given: dict[str, str]) -> None:
    path = tsv(tmp_path, "news.tsv")
    with pytest.raises(InputError, match=f"{path} is a corpus alone: give files of topics and qrels too"):
        open_collection(path, **{name: tmp_path / file for name, file in given.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no corpus at '.*nowhere'"),
        ("irds:mixlm-unknown", "ir_datasets knows no dataset 'mixlm-unknown'"),
        ("lucene:nowhere", "no Lucene index at nowhere"),
        ("empty", "empty is a folder without corpus.jsonl"),
        ("index", "index is a Lucene index: to read its documents, name it lucene:.*index"),
    ],
)
def test_a_source_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("index").mkdir()
    Path("index/_0.cfs").write_bytes(b"\x3f\xd7\x6c\x17")  # how the files of Lucene begin
    Path("index/segments_1").write_bytes(b"\x3f\xd7\x6c\x17")
    with pytest.raises(InputError, match=message):
        open_collection(source)


@pytest.mark.parametrize(
    ("library", "source", "message"),
    [("ir_datasets", "irds:x", "irds:x needs ir_datasets"), ("pyserini", "lucene:x", "Pyserini is not installed")],
)
def test_a_library_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x" / "segments_1", "")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency, match=f"{message}.*pip install"):
        open_collection(source)


# Queries that are documents


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arguana", True),
        ("ArguAna", True),
        ("beir-arguana", True),
        ("beir_quora", True),
        ("beir/quora/dev", True),
        ("quora test", True),
        ("arguana-2020", False),
        ("touche", False),
        ("my quora", False),
    ],
)
def test_of_arguana_and_quora_a_querys_own_document_is_dropped(tmp_path: Path, name: str, expected: bool) -> None:
    assert bool(QUERIES_ARE_DOCUMENTS.fullmatch(name)) is expected
    if "/" not in name:
        beir(tmp_path / name)
        assert open_collection(tmp_path / name).drop_same_id is expected
        (tmp_path / name / "qrels" / "test.tsv").rename(tmp_path / name / "qrels" / "dev.tsv")
        if name.lower() == "arguana":
            assert open_collection(tmp_path / name, "dev").drop_same_id  # called "arguana dev"


# Samples


def large(order: int | None = None) -> Collection:
    qids = [f"q{number}" for number in range(1500)]
    if order is not None:
        random.Random(order).shuffle(qids)
    return Collection("big", DOCUMENTS, {qid: f"text {qid}" for qid in qids}, {qid: {"d1": 1} for qid in qids}, True)


def test_a_sample_is_drawn_by_its_seed_alone() -> None:
    """Not by the order of the queries, which it keeps."""
    whole = large()
    part = sampled(whole, 1000)
    assert part.name == "big (1,000 of 1,500 queries)"
    assert len(part.queries) == 1000 and part.queries.keys() == part.qrels.keys()
    assert list(part.queries.items()) == [row for row in whole.queries.items() if row[0] in part.queries]
    assert (part.corpus, part.drop_same_id) == (whole.corpus, True)
    assert sampled(large(order=1), 1000).queries == part.queries == sampled(large(), 1000, seed=0).queries
    assert sampled(whole, 1000, seed=1).queries != part.queries
    assert list(sampled(whole, 3).queries) == ["q358", "q423", "q1071"]  # in every release of ours


@pytest.mark.parametrize("count", [None, 1500, 2000])
def test_a_sample_of_all_is_the_collection_itself(count: int | None) -> None:
    whole = large()
    assert sampled(whole, count) is whole


@pytest.mark.parametrize("count", [0, -1])
def test_a_sample_of_nothing_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=re.escape(f"a sample needs at least 1 query, not {count}")):
        sampled(large(), count)
