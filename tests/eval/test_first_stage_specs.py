"""A first stage by a word of the command line; a word that is none of them says which there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.first_stages import BM25, DensePyserini, DenseSentenceTransformers, RunFile
from mixlm_rerank.eval.specs import make_first_stage


def make(spec: str, folder: Path = Path("out"), source: str = "DATA/scifact", split: str = "dev") -> object:
    return make_first_stage(spec, source, split, folder)


@pytest.mark.parametrize(("spec", "fields"), [("bm25", "flat"), ("bm25-multifield", "multifield")])
def test_bm25_keeps_an_index_for_each_way_of_fields(spec: str, fields: str) -> None:
    made = make(spec)
    assert isinstance(made, BM25)
    assert (made.fields, made.k1, made.b, made.folder.parent) == (fields, 0.9, 0.4, Path("out"))
    other = make("bm25" if fields == "multifield" else "bm25-multifield")
    assert isinstance(other, BM25) and other.folder != made.folder


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("runs/bm25.trec", "runs/bm25.trec"),
        ("{collection}/runs/bm25.{split}.trec", "DATA/scifact/runs/bm25.dev.trec"),
        ("C:/bm25@{split}.trec.gz", "C:/bm25@dev.trec.gz"),
        ("{{{split}}}.trec", "{dev}.trec"),
    ],
)
def test_a_run_by_collection_and_split(value: str, path: str) -> None:
    made = make(f"run:{value}")
    assert isinstance(made, RunFile)
    assert made.path == Path(path)


@pytest.mark.parametrize(
    "value", ["{}", "{0}", "{name}", "{split", "split}", "{split:d}", "{split.name}", "{split[a]}", "{split[9]}"]
)
def test_other_braces_are_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"run:FILE may have \{collection\} and \{split\} in it, no other braces: "):
        make(f"run:{value}")


def test_a_bi_encoder(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    made = make(f"dense:{checkpoint('bert')}", tmp_path)
    assert isinstance(made, DenseSentenceTransformers)
    assert made.folder == tmp_path / "embeddings"
    with pytest.raises(InputError, match=f"cannot load the model '{tmp_path}/nowhere'"):
        make(f"dense:{tmp_path}/nowhere")


def test_an_index_of_faiss_and_its_encoder() -> None:
    made = make("faiss:indexes/e5@intfloat/e5-base")
    assert isinstance(made, DensePyserini)
    assert (made.folder, made.encoder) == (Path("indexes/e5"), "intfloat/e5-base")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "BM25",
        "bm25:",
        "bm25:k1=1",
        "bm25-flat",
        "run",
        "run:",
        "dense",
        "dense:",
        "faiss",
        "faiss:index",
        "faiss:@e",
    ]
    + ["faiss:index@", "cross-encoder:x"],
)
def test_any_other_word_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=rf"no such first stage: '{spec}'. There are: bm25 or bm25-multifield"):
        make(spec)
