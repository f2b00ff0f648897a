"""Every first stage keeps one contract, by real Lucene, Faiss and sentence-transformers; each has its own errors."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mixlm_rerank import Candidate, Document
from mixlm_rerank.errors import InputError, MissingDependency, install_command
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import BM25, DensePyserini, FirstStage, RunFile
from mixlm_rerank.systems.sentence_transformers import DenseSentenceTransformers

WORDS = ("dog", "moon", "mail", "cat", "sleep", "bread", "yeast", "man")
# "d1" asks for itself, as in ArguAna; "007" finds nothing where words must match
QUERIES = {"007": "zebra", "d1": "Dogs. A dog barks at the moon and at the mail man.", "q2": "bread and yeast"}
RUN = """q2 Q0 d4 1 1.5 x
d1 Q0 d6 9 2.5 x
d1 Q0 d2 1 -1.5 x
other Q0 d3 1 7 x
d1 Q0 d1 2 9.25 x
d1 Q0 007 3 2.5 x
"""
IN_ORDER = ["d1", "d6", "007", "d2"]  # of query d1: equal scores as they stand
KINDS = ["run", "bm25", "multifield", "faiss", "faiss L2", "dense"]

Made = Callable[[str], FirstStage]


def vector(text: str) -> np.ndarray[Any, Any]:
    """How often each of a few words occurs, as a vector of length 1: enough of an encoder."""
    counts = np.array([text.lower().count(word) + 0.01 for word in WORDS], dtype=np.float32)
    return counts / np.linalg.norm(counts)


def encoder(encode: Callable[[str], Any] = vector) -> Any:
    """What Pyserini takes for an encoder."""
    return SimpleNamespace(encode=encode)


def faiss_index(folder: Path, documents: list[Document], metric: str = "IP", encode: Any = vector) -> Path:
    """A flat index in Pyserini's layout."""
    import faiss

    vectors = np.stack([encode(document.content) for document in documents])
    index = {"IP": faiss.IndexFlatIP, "L2": faiss.IndexFlatL2}[metric](vectors.shape[1])
    index.add(vectors)
    folder.mkdir(parents=True)
    faiss.write_index(index, str(folder / "index"))
    (folder / "docid").write_text("".join(f"{document.docid}\n" for document in documents))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def bi_encoder(checkpoint: Callable[..., Path], place: Path) -> Path:
    """The folder of a tiny SentenceTransformer with prompts of its own."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint("bert")), prompts={"query": "yes: ", "document": "no: "})
    model.save(str(place / "tiny"))
    return place / "tiny"


@pytest.fixture(scope="module")
def stage(place: Path, documents: list[Document], bi_encoder: Path) -> Made:
    """``stage("bm25")``: a first stage of that kind over ``documents``; what it builds is shared by all tests."""

    def make(kind: str) -> FirstStage:
        if kind == "run":
            (place / "bm25.trec").write_text(RUN)
            return RunFile(place / "bm25.trec")
        if kind.startswith("faiss"):
            folder = place / kind
            if not folder.exists():
                faiss_index(folder, documents, "L2" if kind.endswith("L2") else "IP")
            return DensePyserini(folder, encoder())
        if kind == "dense":
            return DenseSentenceTransformers(bi_encoder, place / "embeddings")
        return BM25(place / kind, "multifield" if kind == "multifield" else "flat")

    return make


@pytest.fixture
def collection(documents: list[Document]) -> Collection:
    return Collection("tiny", documents, QUERIES, {qid: {"d1": 1} for qid in QUERIES})


def docids(run: dict[str, list[Candidate]]) -> dict[str, list[str]]:
    return {qid: [hit.docid for hit in hits] for qid, hits in run.items()}


# The contract


@pytest.mark.parametrize("kind", KINDS)
def test_every_query_gets_its_best_documents_best_first(stage: Made, collection: Collection, kind: str) -> None:
    whole = stage(kind).retrieve(collection, 100)
    assert list(whole) == list(QUERIES)
    for hits in whole.values():
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert len({hit.docid for hit in hits}) == len(hits)
        assert all((type(hit.docid), type(hit.score)) == (str, float) and math.isfinite(hit.score) for hit in hits)
    if kind.startswith(("faiss", "dense")):
        assert {len(hits) for hits in whole.values()} == {6}  # all there are, for a depth of 100
    else:
        assert whole["007"] == []
        assert docids(whole)["q2"][0] == "d4"
    for depth in (1, 3):
        assert docids(stage(kind).retrieve(collection, depth)) == {
            qid: found[:depth] for qid, found in docids(whole).items()
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 100])
def test_a_querys_own_document_is_dropped_before_the_cut(
    stage: Made, collection: Collection, kind: str, depth: int
) -> None:
    """It would take the place of a candidate; other queries keep the document."""
    whole = docids(stage(kind).retrieve(collection, 100))
    assert whole["d1"][0] == "d1" and len(whole["d1"]) > 2
    dropping = replace(collection, drop_same_id=True, queries=QUERIES | {"x": QUERIES["d1"]})
    found = docids(stage(kind).retrieve(dropping, depth))
    assert found["d1"] == whole["d1"][1 : depth + 1]
    assert found["q2"] == whole["q2"][:depth]
    assert found["x"] == ([] if kind == "run" else whole["d1"][:depth])


@pytest.mark.parametrize("kind", KINDS)
def test_a_depth_below_one_is_refused_before_any_work(
    stage: Made, collection: Collection, kind: str, tmp_path: Path
) -> None:
    made = stage(kind)
    if isinstance(made, BM25 | DenseSentenceTransformers):
        made.folder = tmp_path / "new"
    with pytest.raises(InputError, match="^depth must be at least 1, not 0$"):
        made.retrieve(collection, 0)
    assert list(tmp_path.iterdir()) == []


def test_names_say_exactly_what_it_is(stage: Made) -> None:
    assert stage("run").name == "run file bm25.trec"
    assert stage("bm25").name == "BM25 (Pyserini, flat, k1=0.9, b=0.4)"
    assert BM25("x", "multifield", 1.25, 1).name == "BM25 (Pyserini, multifield, k1=1.25, b=1)"
    assert stage("faiss").name == "dense (Pyserini, faiss, SimpleNamespace)"
    assert DensePyserini("a/index", "org/e5").name == "dense (Pyserini, index, e5)"
    assert stage("dense").name == "dense (tiny, exact cosine)"


@pytest.mark.parametrize("library", ["pyserini", "faiss"])
def test_a_library_that_is_not_there(
    stage: Made, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    made = [BM25(tmp_path / "new"), stage("faiss")] if library == "pyserini" else [stage("faiss")]
    for name in [name for name in sys.modules if name.startswith("pyserini.search.faiss")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    for first_stage in made:
        with pytest.raises(MissingDependency, match=rf"(?i){library}.*: {re.escape(install_command('pyserini'))}"):
            first_stage.retrieve(collection, 10)
    assert list(tmp_path.iterdir()) == []


def test_without_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependency, match="needs sentence-transformers: pip install"):
        DenseSentenceTransformers("any", tmp_path)


# Run files


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.trec", RUN.encode()),
        ("windows.txt", b"\xef\xbb\xbf" + RUN.replace("\n", "\r\n").encode()),
        ("x.run.gz", gzip.compress(RUN.encode(), mtime=0)),
        ("msmarco.tsv", b"d1\td1\t1\nd1\t007\t3\nd1\td6\t2\nother\td6\t1\nd1\td2\t4\nq2\td4\t1\n"),
    ],
)
def test_a_run_in_every_form(tmp_path: Path, collection: Collection, name: str, data: bytes) -> None:
    """By score or rank, wherever the line stands; queries that are not of the collection are left out."""
    (tmp_path / name).write_bytes(data)
    found = RunFile(str(tmp_path / name)).retrieve(collection, 10)
    assert docids(found) == {"007": [], "d1": IN_ORDER, "q2": ["d4"]}
    expected = [1, 1 / 2, 1 / 3, 1 / 4] if "msmarco" in name else [9.25, 2.5, 2.5, -1.5]
    assert [hit.score for hit in found["d1"]] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q8 Q0 d1 1 2 x\n", r"no query of .*bad.trec is judged in tiny \(run: q8; judged: 007, d1, q2\): do they"),
        ("d1 Q0 d2 1 2 x\nd1 Q0 d2 2 1 x\n", "bad.trec, line 2: document 'd2' occurs twice for query 'd1'"),
        ("d1 Q0 d2 1 2 x\nd1 Q0 d3 1 nan x\n", "bad.trec, line 2: the score 'nan' is not finite"),
        ("d1 Q0 d2 1 -inf x\n", "bad.trec, line 1: the score '-inf' is not finite"),
        ("d1 Q0 d2 1 2 x\nd1 d2 1\n", r"bad.trec, line 2: 3 columns, expected 6 \(qid Q0"),
        ("", "bad.trec holds no candidates"),
        (None, "no such file: .*bad.trec"),
    ],
)
def test_a_bad_run(tmp_path: Path, collection: Collection, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "bad.trec").write_text(text)
    first_stage = RunFile(tmp_path / "bad.trec")
    with pytest.raises(InputError, match=message):
        first_stage.retrieve(collection, 10)


# BM25


def test_an_index_is_built_once_and_needs_no_documents_then(
    stage: Made, place: Path, collection: Collection, tmp_path: Path
) -> None:
    expected = stage("bm25").retrieve(collection, 10)
    before = {file.name: file.stat().st_mtime_ns for file in (place / "bm25").iterdir()}
    without = replace(collection, corpus=None)
    assert stage("bm25").retrieve(without, 10) == expected == stage("bm25").retrieve(collection, 10)
    assert {file.name: file.stat().st_mtime_ns for file in (place / "bm25").iterdir()} == before
    with pytest.raises(InputError, match="tiny has no documents for a Lucene index at .*new: give its corpus"):
        BM25(tmp_path / "new").retrieve(without, 10)


def test_an_index_of_other_documents_or_fields_is_refused(
    stage: Made, place: Path, collection: Collection, documents: list[Document]
) -> None:
    stage("bm25").retrieve(collection, 1)
    with pytest.raises(InputError, match="was built from other documents: choose another folder"):
        stage("bm25").retrieve(replace(collection, corpus=documents[1:]), 1)
    with pytest.raises(InputError, match="is flat, not multifield: choose another folder"):
        BM25(place / "bm25", "multifield").retrieve(collection, 1)


def test_title_and_text_are_one_field_or_two(tmp_path: Path) -> None:
    """Flat, a word that is the whole title is one of a long document; by itself it weighs more than one in a text."""

    def words(count: int) -> str:
        return " ".join(f"word{number}" for number in range(count))

    corpus = [
        Document("title", words(60), "yeast"),
        Document("text", f"yeast {words(30)}", words(20)),
        Document("3", "x", words(20)),
    ]
    asked = Collection("two", corpus, {"q": "yeast"}, {"q": {"title": 1}})
    flat, multifield = BM25(tmp_path / "flat"), BM25(tmp_path / "multifield", "multifield")
    assert docids(flat.retrieve(asked, 2)) == {"q": ["text", "title"]}
    assert docids(multifield.retrieve(asked, 2)) == {"q": ["title", "text"]}


def test_k1_and_b_are_used(stage: Made, place: Path, collection: Collection) -> None:
    """Without k1, how often a word occurs does not count; with b, the length of the document does."""
    stage("bm25").retrieve(collection, 1)
    asked = replace(collection, queries={"q": "mail"})

    def scores(k1: float, b: float) -> dict[str, float]:
        (hits,) = BM25(place / "bm25", k1=k1, b=b).retrieve(asked, 10).values()
        return {hit.docid: hit.score for hit in hits}

    assert scores(0, 0)["d1"] == pytest.approx(scores(0, 0)["d6"], abs=1e-3)  # Anserini sets ties apart by a little
    assert scores(0.9, 0)["d6"] > scores(0.9, 0)["d1"] + 0.01
    assert scores(0.9, 1)["d6"] < scores(0.9, 0)["d6"] - 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": "title"}, 'fields must be "flat" or "multifield", not \'title\''),
        ({"k1": -0.1}, r"k1 from 0 upwards and b between 0 and 1, not k1=-0.1, b=0.4"),
        ({"k1": math.nan}, "not k1=nan, b=0.4"),
        ({"k1": math.inf}, "not k1=inf, b=0.4"),
        ({"b": 1.1}, "not k1=0.9, b=1.1"),
    ],
)
def test_options_out_of_their_range(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BM25(tmp_path, **options)


# Pyserini's Faiss


@pytest.mark.parametrize("kind", ["faiss", "faiss L2"])
def test_scores_are_inner_products_or_distances_that_fall(
    stage: Made, collection: Collection, documents: list[Document], kind: str
) -> None:
    found = stage(kind).retrieve(collection, 10)
    for qid, query in QUERIES.items():
        expected = {
            d.docid: -float(((vector(d.content) - vector(query)) ** 2).sum())
            if "L2" in kind
            else float(vector(d.content) @ vector(query))
            for d in documents
        }
        assert {hit.docid: hit.score for hit in found[qid]} == pytest.approx(expected, abs=1e-4)


def test_an_encoder_by_its_folder(
    checkpoint: Callable[..., Path], documents: list[Document], collection: Collection, tmp_path: Path
) -> None:
    """The last layer's first state, as Pyserini reads a checkpoint of a name that tells it nothing."""
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(checkpoint("bert")), AutoTokenizer.from_pretrained(checkpoint("bert"))

    def encode(text: str) -> Any:
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0].numpy()

    folder = faiss_index(tmp_path / "index", documents, encode=encode)
    expected = DensePyserini(folder, encoder(encode)).retrieve(collection, 6)
    for source in (checkpoint("bert"), str(checkpoint("bert"))):
        found = DensePyserini(str(folder), source).retrieve(collection, 6)
        assert docids(found) == docids(expected)


def junk(folder: Path) -> None:
    (folder / "index").write_bytes(b"not an index")


def one_docid_less(folder: Path) -> None:
    (folder / "docid").write_text("d1\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no Faiss index of Pyserini at .*index: it holds two files, index and docid"),
        (lambda folder: (folder / "docid").unlink(), "no Faiss index of Pyserini at"),
        (lambda folder: (folder / "index").unlink(), "no Faiss index of Pyserini at"),
        (junk, r"dense \(Pyserini, index, .*\) cannot be opened: \S"),
        (one_docid_less, "cannot be opened: index and docid differ in length"),
        (
            lambda folder: (folder / "docid").write_text("d1\nd1\nd3\nd4\nd5\nd6\n"),
            "a document occurs twice for query '007'; is its docid twice in the index",
        ),
    ],
)
def test_a_faiss_index_that_is_not_whole(
    documents: list[Document], collection: Collection, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = faiss_index(tmp_path / "index", documents)
    damage(folder)
    with pytest.raises(InputError, match=message):
        DensePyserini(folder, encoder()).retrieve(collection, 10)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda query: vector(query)[:5], "does not give vectors of 8 numbers, as the index holds"),
        (lambda query: np.zeros((2, 8), dtype=np.float32), "does not give vectors of 8 numbers, as the index holds"),
        (lambda query: vector(query) * math.nan, "gives numbers that are not finite for query '007'"),
        (lambda query: vector(query) * math.inf, "score of document .* for query '007' is not finite"),
    ],
    ids=["too short", "two rows", "NaN", "infinite"],
)
def test_an_encoder_that_does_not_fit(stage: Made, collection: Collection, encode: Any, message: str) -> None:
    first_stage = stage("faiss")
    first_stage.encoder = encoder(encode)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=message):
        first_stage.retrieve(collection, 10)


def test_an_encoder_that_cannot_be_loaded(stage: Made, collection: Collection, tmp_path: Path) -> None:
    first_stage = stage("faiss")
    first_stage.encoder = tmp_path  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"cannot be opened: \S"):
        first_stage.retrieve(collection, 10)


# sentence-transformers


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_exact_search_by_the_models_own_similarity_and_prompts(
    bi_encoder: Path, collection: Collection, documents: list[Document], tmp_path: Path, similarity: str
) -> None:
    """Documents without text are never found."""
    from sentence_transformers import SentenceTransformer

    shutil.copytree(bi_encoder, tmp_path / "model")
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"similarity_fn_name": similarity}))
    model = SentenceTransformer(str(tmp_path / "model"))
    first_stage = DenseSentenceTransformers(tmp_path / "model", tmp_path / "embeddings")
    assert first_stage.name == f"dense (model, exact {similarity})"
    found = first_stage.retrieve(replace(collection, corpus=[Document("d0", " "), *documents]), 10)
    queries = model.encode([f"yes: {query}" for query in QUERIES.values()], prompt="", convert_to_tensor=True).double()
    vectors = model.encode([f"no: {d.content}" for d in documents], prompt="", convert_to_tensor=True).double()
    expected = {
        "cosine": lambda: torch.nn.functional.cosine_similarity(queries[:, None], vectors[None], dim=-1),
        "dot": lambda: queries @ vectors.T,
        "euclidean": lambda: -(queries[:, None] - vectors[None]).norm(dim=-1),
    }[similarity]()
    for row, hits in zip(expected.tolist(), found.values(), strict=True):
        by_docid = dict(zip((document.docid for document in documents), row, strict=True))
        assert {hit.docid: hit.score for hit in hits} == pytest.approx(by_docid, rel=1e-4, abs=1e-4)


def test_embeddings_are_kept(stage: Made, place: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stage("dense").retrieve(collection, 6)
    first_stage = stage("dense")
    monkeypatch.delattr("sentence_transformers.SentenceTransformer.encode_document")
    found = first_stage.retrieve(collection, 6)
    for qid, hits in expected.items():
        scores = {hit.docid: hit.score for hit in hits}
        assert {hit.docid: hit.score for hit in found[qid]} == pytest.approx(scores, abs=1e-5)


def test_a_model_that_gives_no_numbers(stage: Made, collection: Collection, tmp_path: Path) -> None:
    first_stage = stage("dense")
    assert isinstance(first_stage, DenseSentenceTransformers)
    first_stage.folder = tmp_path
    with torch.no_grad():
        next(first_stage._model.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="the score of document 'd.' for query '007' is not finite"):
        first_stage.retrieve(collection, 3)


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot load the model '{tmp_path}/nowhere'"):
        DenseSentenceTransformers(tmp_path / "nowhere", tmp_path)


def test_without_documents_there_is_nothing_to_encode(stage: Made, collection: Collection) -> None:
    with pytest.raises(InputError, match=r"tiny has no documents for dense \(tiny, .*: give its corpus"):
        stage("dense").retrieve(replace(collection, corpus=None), 3)
