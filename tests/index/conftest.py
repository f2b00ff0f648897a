"""A stand-in for the model, so that thousands of documents are encoded at no cost, and a look at all that is stored."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from mixlm_rerank import Document
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.progress import Progress


class StubModel:
    """What building an index needs of a MixLM: the tokens of a text follow from its checksum; words are its tokens."""

    def __init__(
        self,
        tokens: int = 3,
        dim: int = 8,
        fingerprint: str = "0123456789abcdef",
        name: str = "stub",
        text_tokens: int = 100,
    ) -> None:
        words = Tokenizer(models.WordLevel({"any": 0}, unk_token="any"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
        self.config = SimpleNamespace(tokens=tokens, title_tokens=0)
        self.item_encoder = SimpleNamespace(
            token_size=dim,
            tokenizer=tokenizer,
            text_tokens=text_tokens,
            readable=lambda texts: [bool(text.replace("\u200b", "").strip()) for text in texts],
        )
        self.fingerprint = fingerprint
        self.name = name

    def accepts(self, mark: str) -> bool:
        return mark == self.fingerprint

    def encode(self, texts: Sequence[str], *, bar: Progress | None = None) -> NDArray[np.float32]:
        if bar is not None:
            bar.update(len(texts))
        shape = (self.config.tokens, self.item_encoder.token_size)
        seeds = [zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts]
        return np.stack([np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in seeds])


LOCKS = ("lock.mdb", "writer.lock")


@pytest.fixture(scope="session")
def stub() -> type[StubModel]:
    """``stub(tokens=3, dim=8)``: a model that encodes at no cost."""
    return StubModel


@pytest.fixture
def corpus() -> Callable[[int], list[Document]]:
    """``corpus(100)``: documents d0 to d99 with different texts."""
    return lambda count: [Document(f"d{number}", f"text number {number}") for number in range(count)]


@pytest.fixture(scope="session")
def contents() -> Callable[[Path, Sequence[Document]], dict[str, object]]:
    """``contents(folder, documents)``: every byte of an index, its entries and manifest, to compare."""

    def read(folder: Path, documents: Sequence[Document]) -> dict[str, object]:
        store = LocalStore(folder)
        files = [path for path in sorted(folder.iterdir()) if path.name not in LOCKS]
        stored: dict[str, object] = {path.name: path.read_bytes() for path in files}
        entries = store.entries([document.docid for document in documents])
        return stored | {"entries": entries.tobytes(), "documents": len(store), "manifest": store.manifest}

    return read


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], object]], int]]:
    """``forked(function)``: the pid of a child process that runs it; its exit status is 0 if nothing was raised."""
    children = []

    def fork(function: Callable[[], object]) -> int:
        children.append(os.fork())
        if children[-1]:
            return children[-1]
        status = 1
        tqdm.set_lock(threading.RLock())  # its own lock is shared over forks: a child killed holding it would hang us
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    yield fork
    for child in children:  # those that hang
        with suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) == (0, 0):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
