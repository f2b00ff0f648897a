"""A build stores every document of the corpus, each as if it stood alone, or says what is wrong with the corpus."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import Document, MixLM, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.index import builder
from mixlm_rerank.index.encoding import Reader

WORDS = ["dog", "moon", "mail", "bread", "salt", "cats", "sleep", "earth"]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "WINDOW", 8)


@pytest.mark.parametrize("stream", [False, True], ids=["list", "generator"])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 24, 50])
def test_every_document_of_the_corpus_is_in_the_index(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], count: int, stream: bool
) -> None:
    """Once, a document was lost at every window boundary."""
    documents = corpus(count)
    source = (document for document in documents) if stream else documents
    index = TokenIndex.build(source, stub(), tmp_path / "index", precision="float32", progress=False)
    assert len(index) == count
    fetched = index.fetch([document.docid for document in documents])
    np.testing.assert_array_equal(fetched.tokens, stub().encode([document.text for document in documents]))


def test_a_corpus_is_read_again_and_again_and_never_held(tmp_path: Path, stub: Any) -> None:
    class Corpus:
        passes = 0

        def __iter__(self) -> Iterator[Document]:
            self.passes += 1
            return (Document(f"d{number}", f"text number {number}") for number in range(20))

    source = Corpus()
    index = TokenIndex.build(source, stub(), tmp_path / "index", progress=False)
    assert len(index) == 20
    assert source.passes > 1


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_the_bytes_of_a_document_do_not_depend_on_its_company(
    tmp_path: Path, tiny: Callable[..., MixLM], contents: Any, architecture: str
) -> None:
    """Alone, in a corpus, in the same corpus shuffled: update == rebuild rests on this."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randrange(1, 30))) for _ in range(60)]
    documents = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    model = tiny(architecture)

    def records(name: str, some: list[Document]) -> dict[str, bytes]:
        TokenIndex.build(some, model, tmp_path / name, progress=False)
        stored = contents(tmp_path / name, some)["tokens-000000.bin"]
        size = len(stored) // len(some)
        return {document.docid: stored[row * size : (row + 1) * size] for row, document in enumerate(some)}

    in_order = records("in order", documents)
    assert len(set(in_order.values())) > 50
    assert records("shuffled", draw.sample(documents, 60)) == in_order
    for document in documents[:10]:
        assert records(f"alone {document.docid}", [document]) == {document.docid: in_order[document.docid]}


def test_title_and_text_are_encoded_together(tmp_path: Path, stub: Any) -> None:
    documents = [Document("d1", "It barks.", title="The dog"), Document("d2", "", title="Only a title")]
    index = TokenIndex.build(documents, stub(), tmp_path / "index", precision="float32", progress=False)
    expected = stub().encode(["The dog. It barks.", "Only a title. "])
    np.testing.assert_array_equal(index.fetch(["d1", "d2"]).tokens, expected)


def test_estimate_and_progress_go_to_stderr(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], capsys: pytest.CaptureFixture[str]
) -> None:
    TokenIndex.build(corpus(20), stub(tokens=4, dim=50_000), tmp_path / "index", precision="float16", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{tmp_path / 'index'}: 20 documents, about 8.0 MB on disk (400,150 bytes a document), about" in err
    assert "of encoding" in err and "20/20" in err


def test_progress_false_prints_nothing(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], capsys: pytest.CaptureFixture[str]
) -> None:
    TokenIndex.build(corpus(20), stub(), tmp_path / "index", progress=False)
    assert capsys.readouterr() == ("", "")


def test_too_little_room_is_found_before_the_work(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(InputError, match=r"the index needs about 2 MB; .* has 1 MB free"):
        TokenIndex.build(corpus(500), stub(tokens=4, dim=1000), tmp_path / "index", progress=False)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("text", ["", "  \n\t"])
@pytest.mark.parametrize("stream", [False, True], ids=["list", "generator"])
def test_a_document_without_text_is_refused_by_name_and_number(
    tmp_path: Path, stub: Any, text: str, stream: bool
) -> None:
    documents = [Document("d1", "text"), Document("d2", text)]
    with pytest.raises(InputError, match=r"document 2 \('d2'\) has no text that the model can read: .*--skip-empty"):
        TokenIndex.build(iter(documents) if stream else documents, stub(), tmp_path / "index", progress=False)


def test_a_title_and_a_text_that_are_both_blank_are_no_text(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    """What joins them would be readable."""
    for blank in (" ", "\u200b"):
        with pytest.raises(InputError, match="has no text that the model can read"):
            TokenIndex.build([Document("d1", blank, title=blank)], tiny("bert"), tmp_path / "none", progress=False)


@pytest.mark.parametrize("documents", [None, 7, Document("d1", "a dog")])
def test_what_is_no_list_of_documents_is_refused(tiny: Callable[..., MixLM], tmp_path: Path, documents: Any) -> None:
    with pytest.raises(InputError, match="documents must be a list or another iterable of Document, not"):
        TokenIndex.build(documents, tiny("bert"), tmp_path / "none", progress=False)


def test_a_models_name_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model must be a MixLM .*, not 'default'"):
        TokenIndex.build([Document("d1", "a dog")], "default", tmp_path / "none", progress=False)  # type: ignore[arg-type]


def test_documents_without_text_can_be_skipped(tmp_path: Path, stub: Any) -> None:
    documents = [Document("d1", ""), Document("d2", "text"), Document("d3", " "), Document("d4", "", title="title")]
    index = TokenIndex.build(documents, stub(), tmp_path / "index", skip_empty=True, progress=False)
    assert index.fetch(["d1", "d2", "d3", "d4"]).found.tolist() == [False, True, False, True]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 19), (7, 8)])
def test_a_duplicate_docid_is_refused_with_the_numbers_of_both_documents(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], first: int, second: int
) -> None:
    documents = corpus(20)
    documents[second] = Document(documents[first].docid, "another text")
    with pytest.raises(InputError, match=rf"duplicate docid 'd{first}': documents {first + 1} and {second + 1}$"):
        TokenIndex.build(documents, stub(), tmp_path / "index", progress=False)
    assert not (tmp_path / "index").exists()


def test_numbers_of_duplicates_count_skipped_documents(tmp_path: Path, stub: Any) -> None:
    documents = [Document("d1", ""), Document("d2", "text"), Document("d2", "text"), Document("d1", "")]
    with pytest.raises(InputError, match="duplicate docid 'd2': documents 2 and 3$"):
        TokenIndex.build(documents, stub(), tmp_path / "index", skip_empty=True, progress=False)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (2, 19), (7, 8)])
def test_a_duplicate_docid_in_a_stream_is_refused_when_it_comes(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], first: int, second: int
) -> None:
    documents = corpus(20)
    documents[second] = documents[first]
    with pytest.raises(InputError, match=rf"duplicate docid 'd{first}' .*{second // 8 * 8} documents before it"):
        TokenIndex.build(iter(documents), stub(), tmp_path / "index", progress=False)


@pytest.mark.parametrize("before", [0, 1, 7])
def test_a_stream_that_fails_in_its_first_window_leaves_no_index_behind(
    tmp_path: Path, stub: Any, corpus: Any, before: int
) -> None:
    documents = [*corpus(before), Document("empty", "")]
    with pytest.raises(InputError, match=rf"document {before + 1} \('empty'\) has no text"):
        TokenIndex.build(iter(documents), stub(), tmp_path / "index", progress=False)
    index = TokenIndex.build(corpus(3), stub(), tmp_path / "index", precision="float32", progress=False)
    assert (len(index), index.manifest.precision) == (3, "float32")


@pytest.mark.parametrize("documents", [[], iter([]), [Document("d1", "")]], ids=["list", "generator", "all skipped"])
def test_an_empty_corpus_is_refused(tmp_path: Path, stub: Any, documents: Any) -> None:
    with pytest.raises(InputError, match="the corpus holds no documents"):
        TokenIndex.build(documents, stub(), tmp_path / "index", skip_empty=True, progress=False)


def test_tokens_that_the_precision_cannot_hold_are_refused(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encode = stub(), stub().encode
    monkeypatch.setattr(model, "encode", lambda texts, bar=None: encode(texts) * 1e6)
    with pytest.raises(InputError, match="too large for float16: use float32"):
        TokenIndex.build(corpus(3), model, tmp_path / "index", precision="float16", progress=False)
    with pytest.raises(InputError, match="precision of a token index must be one of int8, float16, float32"):
        TokenIndex.build(corpus(3), model, tmp_path / "other", precision="float64", progress=False)


def test_a_build_of_mostly_unknown_words_gives_one_warning(
    tmp_path: Path, stub: Any, corpus: Callable[[int], list[Document]], caplog: pytest.LogCaptureFixture
) -> None:
    model = stub(name="english")
    model.item_encoder.tokenizer.unk_token = "any"  # word
    TokenIndex.build(corpus(50), model, tmp_path / "index", progress=False)
    (record,) = caplog.records
    assert record.getMessage().startswith("100% of the documents' tokens are unknown to the tokenizer of english")


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("A dog barks at the moon.", False),
        ("狗对着月亮叫，猫整天都在睡觉，面包是用面粉烤成的。", True),
        ("Собака лает на луну", False),
    ],
)
def test_the_default_model_warns_of_chinese(text: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader(MixLM.from_pretrained("default", device="cpu"), passages=False)
    list(reader.readings([Document("d", text)]))
    assert bool(caplog.records) == warned
