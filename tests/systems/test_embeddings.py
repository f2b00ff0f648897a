"""Document embeddings are computed once for each model and corpus, and never mistaken for those of another."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers.normalizers import Lowercase

from mixlm_rerank import Document
from mixlm_rerank.errors import InputError, MissingDependency
from mixlm_rerank.systems import sentence_transformers as module
from mixlm_rerank.systems.loading import load_sentence_transformer
from mixlm_rerank.systems.sentence_transformers import document_embeddings

Checkpoint = Callable[..., Path]


@pytest.fixture
def model(checkpoint: Checkpoint) -> Any:
    """A tiny random bi-encoder of one's own, to be changed at will."""
    return load_sentence_transformer(str(checkpoint("bert")))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents were encoded at each call of any model."""
    from sentence_transformers import SentenceTransformer

    made: list[int] = []
    encode = SentenceTransformer.encode_document

    def counting(self: Any, texts: list[str], **options: Any) -> Any:
        made.append(len(texts))
        return encode(self, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode_document", counting)
    return made


def test_each_row_is_its_documents_embedding(
    model: Any, documents: list[Document], tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are encoded at once; documents without text are left out."""
    monkeypatch.setattr(module, "AT_ONCE", 4)
    empty = Document("empty", " \n")
    found = document_embeddings(model, [empty, *documents[:2], empty, *documents[2:]], tmp_path / "new" / "folder")
    assert calls == [4, 2]
    assert found.docids == [document.docid for document in documents]
    assert found.vectors.dtype == np.float32
    expected = np.stack([model.encode_document(document.content) for document in documents])
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)


def test_they_are_kept_for_the_next_time(
    model: Any, checkpoint: Checkpoint, documents: list[Document], tmp_path: Path, calls: list[int]
) -> None:
    """For the same model from another place, and the same documents in another order."""
    first = document_embeddings(model, documents, tmp_path / "kept")
    first.vectors[:] = 0  # in memory alone
    shutil.copytree(checkpoint("bert"), tmp_path / "copy")
    again = document_embeddings(
        load_sentence_transformer(str(tmp_path / "copy")), list(reversed(documents)), tmp_path / "kept"
    )
    assert calls == [len(documents)]
    assert again.docids == first.docids
    np.testing.assert_allclose(again.vectors[0], model.encode_document(documents[0].content), atol=1e-5)


def one_weight(model: Any) -> None:
    with torch.no_grad():
        model[0].auto_model.encoder.layer[-1].output.LayerNorm.bias[3] += 1


def prompts(model: Any) -> None:
    model.prompts = {**model.prompts, "document": "passage: "}


def lower_case(model: Any) -> None:
    model.tokenizer.backend_tokenizer.normalizer = Lowercase()


# what makes it another model
CHANGES: dict[str, Callable[[Any], None]] = {
    "a weight": one_weight,
    "a prompt": prompts,
    "the prompt by default": lambda model: setattr(model, "default_prompt_name", "document"),
    "the length": lambda model: setattr(model, "max_seq_length", 8),
    "the dimensions": lambda model: setattr(model, "truncate_dim", 16),
    "the tokenizer": lower_case,
    "the pooling": lambda model: setattr(model[1], "pooling_mode", "cls"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_has_its_own(model: Any, documents: list[Document], tmp_path: Path, change: str) -> None:
    before = document_embeddings(model, documents, tmp_path).vectors
    CHANGES[change](model)
    after = document_embeddings(model, documents, tmp_path).vectors
    expected = np.stack([model.encode_document(document.content) for document in documents])
    np.testing.assert_allclose(after, expected, atol=1e-5)
    if change != "the prompt by default":  # encode_document looks for its own prompt first
        assert before.shape != after.shape or not np.allclose(before, after, atol=1e-3)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_model_of_another_architecture_with_the_same_weights_has_its_own(
    checkpoint: Checkpoint, documents: list[Document], tmp_path: Path
) -> None:
    four, two = (load_sentence_transformer(str(checkpoint("bert", num_attention_heads=heads))) for heads in (4, 2))
    states = zip(four.state_dict().values(), two.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in states)
    before = document_embeddings(four, documents, tmp_path).vectors
    assert not np.allclose(document_embeddings(two, documents, tmp_path).vectors, before, atol=1e-3)


@pytest.mark.parametrize("changed", ["text", "docid", "more", "fewer"])
def test_another_corpus_has_its_own(
    model: Any, documents: list[Document], tmp_path: Path, calls: list[int], changed: str
) -> None:
    document_embeddings(model, documents, tmp_path)
    first = documents[0]
    other = {
        "text": [Document(first.docid, "another text"), *documents[1:]],
        "docid": [Document("d9", first.text, first.title), *documents[1:]],
        "more": [*documents, Document("d9", "one more")],
        "fewer": documents[1:],
    }[changed]
    found = document_embeddings(model, other, tmp_path)
    assert calls == [len(documents), len(other)]
    assert found.docids == [document.docid for document in other]
    np.testing.assert_allclose(found.vectors[0], model.encode_document(other[0].content), atol=1e-5)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_nothing(
    model: Any,
    documents: list[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
) -> None:
    """Neither to be taken for whole, nor in the way of the next one."""
    monkeypatch.setattr(module, "AT_ONCE", 2)
    encode = model.encode_document

    def interrupted(texts: list[str], **options: Any) -> Any:
        if documents[2].content in texts:
            raise kind
        return encode(texts, **options)

    with monkeypatch.context() as patched, pytest.raises(kind):
        patched.setattr(model, "encode_document", interrupted)
        document_embeddings(model, documents, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert document_embeddings(model, documents, tmp_path).docids == [document.docid for document in documents]


def test_two_processes_at_once_do_no_harm(
    model: Any, documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second to end finds the first one's, and leaves nothing of its own."""
    encode = model.encode_document

    def overtaken(texts: list[str], **options: Any) -> Any:
        with monkeypatch.context() as other:
            other.setattr(model, "encode_document", encode)
            other.setattr("os.getpid", lambda: 0)
            document_embeddings(model, documents, tmp_path)
        return encode(texts, **options)

    monkeypatch.setattr(model, "encode_document", overtaken)
    assert document_embeddings(model, documents, tmp_path).vectors.shape == (6, 64)
    (kept,) = tmp_path.iterdir()
    assert not kept.name.startswith(".")


class Changing:
    """A corpus that gives other documents at each reading."""

    def __init__(self, *readings: list[Document]) -> None:
        self.readings = iter(readings)

    def __iter__(self) -> Iterator[Document]:
        return iter(next(self.readings))


@pytest.mark.parametrize("change", ["none", "fewer", "more", "order"])
def test_a_corpus_that_changes_meanwhile_is_refused(
    model: Any, documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    second = {
        "none": [],
        "fewer": documents[:3],
        "more": [*documents, Document("d9", "one more")],
        "order": [*documents[:4], documents[5], documents[4]],
    }[change]
    with pytest.raises(InputError, match="other documents at its second reading: was it changed meanwhile"):
        document_embeddings(model, Changing(documents, second), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "the corpus holds no documents"),
        ([Document("d1", " ")], "the corpus holds no documents"),
        (
            [Document("d1", "a"), Document("d2", "b"), Document("d2", "c")],
            "duplicate docid 'd2' in the corpus: docids must be unique",
        ),
    ],
)
def test_a_corpus_that_cannot_be_encoded(model: Any, tmp_path: Path, corpus: list[Document], message: str) -> None:
    with pytest.raises(InputError, match=message):
        document_embeddings(model, corpus, tmp_path / "embeddings")
    assert list(tmp_path.iterdir()) == []


# Models that cannot be loaded


def truncated(folder: Path, bert: Path) -> None:
    weights = folder / "model.safetensors"
    shutil.copytree(bert, folder, dirs_exist_ok=True)
    weights.write_bytes(weights.read_bytes()[:1000])


def of_another_shape(folder: Path, bert: Path) -> None:
    shutil.copytree(bert, folder, dirs_exist_ok=True)
    save_file({"embeddings.word_embeddings.weight": torch.zeros(2, 3)}, folder / "model.safetensors")


def without_a_tokenizer(folder: Path, bert: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(bert / name, folder / name)


BROKEN: dict[str, Callable[[Path, Path], object]] = {
    "nowhere": lambda folder, bert: folder.rmdir(),
    "empty": lambda folder, bert: None,
    "no JSON": lambda folder, bert: (folder / "config.json").write_text("not JSON"),
    "unknown module": lambda folder, bert: (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "no.such.Module"}])
    ),
    "truncated": truncated,
    "another shape": of_another_shape,
    "no tokenizer": without_a_tokenizer,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_model_that_cannot_be_loaded(checkpoint: Checkpoint, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    BROKEN[broken](folder, checkpoint("bert"))
    with pytest.raises(InputError, match=rf"sentence-transformers cannot load the model '{folder}': \S") as caught:
        load_sentence_transformer(str(folder))
    assert "\n" not in str(caught.value)


def test_without_sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependency, match="a bi-encoder needs sentence-transformers: pip install"):
        load_sentence_transformer("any")
