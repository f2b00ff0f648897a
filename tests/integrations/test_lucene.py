"""BM25 by Pyserini: an index that is whole or not there, and runs of it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document
from mixlm_rerank.errors import InputError
from mixlm_rerank.integrations.java import start_java
from mixlm_rerank.integrations.lucene import bm25_run, build_lucene_index, check_lucene_index, open_searcher
from mixlm_rerank.integrations.pyserini import LuceneCorpus


def docids(run: dict[str, Any]) -> dict[str, list[str]]:
    return {qid: [hit.docid for hit in hits] for qid, hits in run.items()}


def test_title_and_text_are_searched(searcher: Any) -> None:
    assert docids(bm25_run(searcher, {"title": "dogs", "text": "yeast"})) == {"title": ["d1", "d6"], "text": ["d4"]}


def test_candidates_come_best_first_and_as_plain_values(searcher: Any) -> None:
    (hits,) = bm25_run(searcher, {"q": "a dog barks at the moon"}).values()
    assert hits[0].docid == "d1" and len(hits) > 2
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {(type(hit.docid), type(hit.score)) for hit in hits} == {(str, float)}


def test_hits_bounds_the_candidates_of_each_query(searcher: Any) -> None:
    whole = docids(bm25_run(searcher, {"a": "dog moon", "b": "mail"}))
    assert docids(bm25_run(searcher, {"a": "dog moon", "b": "mail"}, hits=1)) == {
        qid: found[:1] for qid, found in whole.items()
    }


def test_several_threads_find_the_same(searcher: Any) -> None:
    queries = {f"q{number}": word for number, word in enumerate(("dog", "cat", "moon", "bread", "mail"))}
    assert bm25_run(searcher, queries, threads=3) == bm25_run(searcher, queries)


def test_a_query_that_matches_nothing_gets_an_empty_list(searcher: Any) -> None:
    run = bm25_run(searcher, {"none": "zebra", "stop words": "the", "some": "yeast"})
    assert docids(run) == {"none": [], "stop words": [], "some": ["d4"]}


def test_the_document_that_is_the_query_is_dropped_before_the_cut(searcher: Any) -> None:
    """Otherwise it would take the place of a candidate (ArguAna)."""
    query = {"d1": "a dog barks at the moon"}
    first, second = docids(bm25_run(searcher, query, hits=2))["d1"]
    assert first == "d1"
    kept = docids(bm25_run(searcher, query, hits=2, drop_same_id=True))["d1"]
    assert len(kept) == 2 and kept[0] == second and "d1" not in kept


def test_a_query_may_be_a_whole_document(searcher: Any) -> None:
    """Lucene by itself refuses more than 1,024 different words."""
    query = " ".join(f"word{number}" for number in range(2000)) + " yeast"
    assert docids(bm25_run(searcher, {"long": query})) == {"long": ["d4"]}


def test_an_existing_folder_is_refused_and_kept(lucene: Path, documents: list[Document]) -> None:
    with pytest.raises(InputError, match=f"{lucene} exists: delete it first"):
        build_lucene_index(documents[:1], lucene)
    assert open_searcher(lucene).num_docs == len(documents)


def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(tmp_path: Path, documents: list[Document]) -> None:
    def interrupted() -> Iterator[Document]:
        yield from (Document(f"n{number}", "many documents") for number in range(1500))
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches Python, although Java runs in the process
        yield Document("never", "reached")

    with pytest.raises(KeyboardInterrupt):
        build_lucene_index(interrupted(), tmp_path / "index")
    assert list(tmp_path.iterdir()) == []
    assert build_lucene_index(documents, tmp_path / "index") == len(documents)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize(
    ("corpus", "told"),
    [
        ([Document("a", "one"), Document("b", "two"), Document("a", "three")], "duplicate docid 'a'"),
        ([], "holds no documents"),
        ([Document("a", " ")], "holds no documents"),
    ],
)
def test_a_corpus_that_cannot_be_indexed_is_refused(tmp_path: Path, corpus: list[Document], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build_lucene_index(corpus, tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_documents_without_text_are_left_out_and_not_counted(tmp_path: Path) -> None:
    corpus = [Document("a", "dog"), Document("b", " \n"), Document("c", "", title="cat"), Document("d", "the?!")]
    assert build_lucene_index(corpus, tmp_path / "deep" / "index") == 3
    assert open_searcher(tmp_path / "deep" / "index").num_docs == 3


@pytest.fixture(scope="module")
def multifield(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an index with a field of titles, of ``documents`` and of one that has nothing but a title."""
    folder = tmp_path_factory.mktemp("lucene") / "multifield"
    assert build_lucene_index([*documents, Document("d7", "", title="Yeast")], folder, fields="multifield") == 7
    return folder


def test_multifield_adds_what_title_and_text_score_each_by_itself(multifield: Path, documents: list[Document]) -> None:
    """Anserini's way for BEIR: two fields, each with its own statistics."""
    searcher = open_searcher(multifield)

    def scores(**fields: float) -> dict[str, float]:
        return {hit.docid: hit.score for hit in searcher.search("mail cats", k=10, fields=fields)}

    title, text = scores(title=1.0), scores(contents=1.0)
    assert set(title) == {"d2", "d6"} and set(text) == {"d1", "d2", "d6"}
    (hits,) = bm25_run(searcher, {"q": "mail cats"}, fields="multifield").values()
    expected = {docid: title.get(docid, 0.0) + text.get(docid, 0.0) for docid in title | text}
    assert {hit.docid: hit.score for hit in hits} == pytest.approx(expected, abs=2e-4)  # Anserini rounds


def test_multifield_finds_a_document_that_is_a_title_alone(multifield: Path, documents: list[Document]) -> None:
    found = docids(bm25_run(open_searcher(multifield), {"q": "yeast"}, fields="multifield"))
    assert set(found["q"]) == {"d4", "d7"}
    assert list(LuceneCorpus(multifield)) == [*documents, Document("d7", "", title="Yeast")]


def test_an_index_is_held_against_fields_and_documents(
    lucene: Path, multifield: Path, searcher: Any, documents: list[Document]
) -> None:
    check_lucene_index(searcher, lucene, "flat", [Document("empty", " "), *reversed(documents)])
    check_lucene_index(searcher, lucene, "flat", None)
    with pytest.raises(InputError, match=f"index at {lucene} is flat, not multifield: choose another folder"):
        check_lucene_index(searcher, lucene, "multifield", documents)
    with pytest.raises(InputError, match=f"index at {multifield} is multifield, not flat: choose another folder"):
        check_lucene_index(open_searcher(multifield), multifield, "flat", documents)
    changed = [*documents[:-1], Document(documents[-1].docid, "another text")]
    with pytest.raises(InputError, match=f"index at {lucene} was built from other documents: choose another folder"):
        check_lucene_index(searcher, lucene, "flat", changed)


@pytest.mark.parametrize("fields", ["flat", "multifield"])
def test_an_index_of_pyserinis_own_is_held_against_them_as_far_as_it_can_tell(tmp_path: Path, fields: Any) -> None:
    from pyserini.index.lucene import LuceneIndexer

    options = ["-fields", "title"] if fields == "multifield" else []
    indexer = LuceneIndexer(args=["-index", str(tmp_path), *options], threads=1)
    indexer.add_batch_raw(['{"id": "x", "contents": "a dog", "title": "Dogs"}'])
    indexer.close()
    foreign = open_searcher(tmp_path)
    check_lucene_index(foreign, tmp_path, "flat", [Document("x", "a dog")])
    with pytest.raises(InputError, match=r"lacks 1 of the first 2 documents \('y' \.\.\.\): choose another"):
        check_lucene_index(foreign, tmp_path, "flat", [Document("x", "a dog"), Document("y", "a cat")])
    if fields == "flat":
        with pytest.raises(InputError, match="has no field of titles, so it is not multifield"):
            check_lucene_index(foreign, tmp_path, "multifield", None)
    else:
        check_lucene_index(foreign, tmp_path, "multifield", None)


def test_half_a_surrogate_pair_does_no_harm(tmp_path: Path) -> None:
    """JSON can hold it, UTF-8 cannot."""
    assert build_lucene_index([Document("a", "a dog \ud83d")], tmp_path / "index") == 1
    assert docids(bm25_run(open_searcher(tmp_path / "index"), {"q": "dog \ud83d"})) == {"q": ["a"]}


def test_relative_paths_follow_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[Document]
) -> None:
    """That of Java stays what it was when Java was started."""
    monkeypatch.chdir(tmp_path)
    build_lucene_index(documents[:2], "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    assert open_searcher("index").num_docs == 2


def test_a_folder_without_an_index_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no Lucene index at {tmp_path} .*mixlm-rerank bm25 index CORPUS {tmp_path}"):
        open_searcher(tmp_path)


def test_a_prebuilt_index_goes_by_its_name(
    lucene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[Document]
) -> None:
    """It lies where Pyserini puts what it has downloaded; another one cannot be had without a network."""
    start_java()
    from pyserini.util import TF_INDEX_INFO

    here, gone = (TF_INDEX_INFO[f"beir-v1.0.0-{name}.flat"] for name in ("scifact", "nfcorpus"))
    folder = tmp_path / "indexes" / f"{here['filename'].removesuffix('.tar.gz')}.{here['md5']}"
    shutil.copytree(lucene, folder)
    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path))
    assert list(LuceneCorpus("beir-v1.0.0-scifact.flat")) == documents
    assert open_searcher("beir-v1.0.0-scifact.flat", offline=True).num_docs == len(documents)
    name = "beir-v1.0.0-nfcorpus.flat"
    with pytest.raises(InputError, match=f"index {name} is not in {tmp_path}: leave out --offline to download it"):
        open_searcher(name, offline=True)
    monkeypatch.setitem(gone, "urls", ["http://127.0.0.1:9/nothing.tar.gz"])
    with pytest.raises(InputError, match=f"Pyserini cannot download its index {name} .http://127.0.0.1:9/nothing"):
        open_searcher(name)
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()  # a folder is no name
    with pytest.raises(InputError, match=rf"no Lucene index at {name} \(make one: .*\)$"):
        open_searcher(name)


def test_half_a_download_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pyserini asserts that size and checksum are right."""
    served = tmp_path / "lucene-inverted.half.tar.gz"
    served.write_bytes(b"half")
    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path / "cache"))
    start_java()
    from pyserini.util import TF_INDEX_INFO

    monkeypatch.setitem(TF_INDEX_INFO["beir-v1.0.0-nfcorpus.flat"], "urls", [served.as_uri()])
    with pytest.raises(InputError, match="Pyserini cannot download its index beir-v1.0.0-nfcorpus.flat .file:.*half"):
        open_searcher("beir-v1.0.0-nfcorpus.flat")


def test_an_index_that_lucene_cannot_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "segments_1").write_bytes(b"not Lucene")
    with pytest.raises(InputError, match=f"index at {tmp_path} cannot be read .*lucene.index.*: build it anew"):
        open_searcher(tmp_path)


def test_starting_java_again_does_nothing(searcher: Any) -> None:
    home = os.environ["JAVA_HOME"]
    start_java()
    assert os.environ["JAVA_HOME"] == home


def test_a_java_machine_without_pyserinis_jar_is_refused(searcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has one Java machine, whose class path cannot be changed any more."""
    monkeypatch.setattr("jnius_config.classpath", ["/somewhere/else.jar"])
    with pytest.raises(InputError, match="call mixlm_rerank.integrations.java.start_java"):
        start_java()
