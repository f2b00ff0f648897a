"""A first stage by a word of the command line; a word that is none of them says which there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.first_stages import BM25, DensePyserini, RunFile
from mixlm_rerank.systems.sentence_transformers import DenseSentenceTransformers
from mixlm_rerank.systems.specs import make_first_stage


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
    ("value", "folder", "settings"),
    [
        (":{at}/scifact/lucene", "{at}/scifact/lucene", (0.9, 0.4)),
        (":{at}/{{collection}}/lucene", "{at}/scifact/lucene", (0.9, 0.4)),
        (":{at}/scifact/lucene@k1=1.2,b=0.75", "{at}/scifact/lucene", (1.2, 0.75)),
        (":{at}/me@work@b=1", "{at}/me@work", (0.9, 1.0)),
        (":{at}/me@work", "{at}/me@work", (0.9, 0.4)),
        (":k1=2", "out/lucene", (2.0, 0.4)),
    ],
)
def test_bm25_takes_an_own_index_and_settings(
    value: str, folder: str, settings: tuple[float, float], tmp_path: Path
) -> None:
    for name in ("scifact/lucene", "me@work"):
        (tmp_path / name).mkdir(parents=True)
    made = make(f"bm25{value.format(at=tmp_path)}", source="scifact")
    assert isinstance(made, BM25)
    assert (str(made.folder), (made.k1, made.b)) == (folder.format(at=tmp_path), settings)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("bm25:gone", "no Lucene index at gone .make one: mixlm-rerank bm25 index CORPUS gone"),
        ("bm25:k=1", "the settings of BM25 are k1 and b, as in bm25:INDEX@k1=0.9,b=0.4; not 'k=1'"),
        ("bm25:k1=much", "the settings of BM25 are k1 and b"),
        ("bm25-multifield:@k1=1=2", "as in bm25-multifield:INDEX"),
        ("bm25:k1=1,b=2", "b between 0 and 1, not k1=1.0, b=2.0"),
        ("bm25:{index}", "no other braces"),
        ("bm24", r"no such first stage: 'bm24' \(did you mean 'bm25'\?\)"),
    ],
)
def test_what_is_wrong_with_bm25_is_told(spec: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make(spec)


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
    with pytest.raises(InputError, match=r"may have \{collection\} and \{split\} in it, no other braces"):
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
    with pytest.raises(InputError, match=rf"no such first stage: '{spec}'.*\. There are: bm25 or bm25-multifield"):
        make(spec)
