"""What is measured on: texts of an exact length in tokens, and token indexes of random embedding tokens."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerBase

from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.entries import Packed
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.lock import writer_lock
from mixlm_rerank.index.manifest import Manifest
from mixlm_rerank.index.plan import DOCID_MAP_BYTES, check_room
from mixlm_rerank.model.ranker import Ranker
from mixlm_rerank.model.template import text_ids
from mixlm_rerank.progress import Progress
from mixlm_rerank.types import Document

__all__ = ["Words", "docid", "index_bytes", "random_docids", "random_index"]

LONG, ENOUGH = 3, 100  # words of three letters and more, where there are a hundred of them
CHUNK = 4096  # documents a commit; 50 MB of float32 at 8 tokens of 384 dimensions


class Words:
    """Words that are one token each, at the beginning of a text and after a blank: n of them are n tokens.

    Raises InputError for a tokenizer that has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = set(tokenizer.all_special_tokens)
        pieces = [piece for piece in tokenizer.get_vocab() if piece not in special]
        words = {tokenizer.convert_tokens_to_string([piece]).strip() for piece in pieces}
        plain = sorted(word for word in words if word.isascii() and word.isalpha())
        twice = [f"{word} {word}" for word in plain]
        ours = text_ids(tokenizer, twice)  # special tokens in a text are plain characters; to others they are special
        theirs = tokenizer(twice, add_special_tokens=False)["input_ids"] if twice else []
        known = [word for word, *both in zip(plain, ours, theirs, strict=True) if [*map(len, both)] == [2, 2]]
        if not known:
            raise InputError(
                "no word of this tokenizer's vocabulary is one token: texts of a known length are not made"
            )
        long = [word for word in known if len(word) >= LONG]
        self._words = long if len(long) >= ENOUGH else known

    def text(self, tokens: int, draw: Random) -> str:
        """A text of exactly ``tokens`` tokens, special tokens not counted."""
        return " ".join(draw.choices(self._words, k=tokens))

    def texts(self, count: int, tokens: int, draw: Random) -> list[str]:
        return [self.text(tokens, draw) for _ in range(count)]

    def prompt(self, ranker: Ranker) -> int:
        """Tokens of the ranker's prefix beside the query's."""
        return len(ranker.prefixes([self._words[0]])[0]) - 1


def docid(row: int) -> str:
    return f"d{row:07d}"


def random_docids(count: int, documents: int, draw: Random) -> list[str]:
    """Different docids of an index of so many documents, in random order."""
    return [docid(row) for row in draw.sample(range(documents), count)]


def index_bytes(manifest: Manifest, documents: int) -> int:
    """About what an index of so many documents takes on disk."""
    return documents * (manifest.quantiser.record_bytes + DOCID_MAP_BYTES)


def random_index(folder: Path, manifest: Manifest, documents: int, bar: Progress | None = None) -> TokenIndex:
    """An index of standard normal embedding tokens; docids are :func:`docid` of 0, 1, ...

    Written by the store's own writer: real to read, and quick to make. Interrupted, it goes on where it stopped, to the
    same bytes; a finished one is opened. Raises InputError if the disk has no room for it.
    """
    begun = (folder / "data.mdb").exists()
    if not begun:
        check_room(index_bytes(manifest, documents), folder)
    with writer_lock(folder):
        store = LocalStore(folder) if begun else LocalStore.create(folder, manifest)
        for start in range(store.rows, documents, CHUNK):  # commits are whole chunks: none is begun midway
            rows = range(start, min(start + CHUNK, documents))
            shape = (len(rows), store.manifest.tokens, store.manifest.dim)
            tokens = np.random.default_rng(start).standard_normal(shape, dtype=np.float32)
            store.append(Packed.of([Document(docid(row), "") for row in rows], store.quantiser.pack(tokens)))
            if bar is not None:
                bar.update(len(rows))
        if not store.manifest.complete:
            store.finish()
    return TokenIndex(folder)
