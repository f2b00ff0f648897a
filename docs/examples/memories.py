"""Memories of an agent, notes, chunks of files: SQLite keeps and finds them, MixLM ranks them. No Java, no server.

    python docs/examples/memories.py FOLDER "split a string at every comma"

Memories here are 300 pages of Python's own documentation. They are encoded when they are added, once; a question then
reads three hundred of them in the time that a cross-encoder needs for a few.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mixlm_rerank import Document, MixLM, Reranker, ScoredDoc, TokenIndex


class Memories:
    """Texts in SQLite's full-text search, and their embedding tokens in a token index beside it."""

    def __init__(self, folder: Path, model: MixLM) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.model = model
        self.texts = sqlite3.connect(folder / "texts.db")
        self.texts.execute("CREATE VIRTUAL TABLE IF NOT EXISTS memories USING fts5(text, tokenize='porter')")
        self.tokens = folder / "tokens"

    def add(self, texts: Sequence[str]) -> None:
        rows = [self.texts.execute("INSERT INTO memories VALUES (?)", (text,)).lastrowid for text in texts]
        documents = [Document(str(row), text) for row, text in zip(rows, texts, strict=True)]
        if self.tokens.exists():
            # replace, not add: SQLite gives the ids of an interrupted call once more
            TokenIndex(self.tokens).replace(documents, self.model, progress=False)
        else:
            TokenIndex.build(documents, self.model, self.tokens, progress=False)
        self.texts.commit()

    def find(self, question: str, count: int = 300) -> list[tuple[str, float]]:
        """Memories that share a word with the question: id and BM25's score, best first."""
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
        if not words:
            return []
        found = "SELECT rowid, -bm25(memories) FROM memories WHERE memories MATCH ? ORDER BY rank LIMIT ?"
        return [(str(row), score) for row, score in self.texts.execute(found, (words, count))]

    def recall(self, question: str, count: int = 5) -> list[ScoredDoc]:
        """The memories that say most about the question."""
        return Reranker(self.model, self.tokens).rerank(question, self.find(question), top_k=count)

    def text(self, memory: ScoredDoc) -> str:
        (text,) = self.texts.execute("SELECT text FROM memories WHERE rowid = ?", (memory.docid,)).fetchone()
        return str(text)


def main(folder: str, question: str, count: int = 300) -> None:
    from mixlm_rerank.demo.corpus import stdlib_documents

    memories = Memories(Path(folder), MixLM.from_pretrained("default", device="cpu"))
    if not memories.tokens.exists():
        longest = sorted(stdlib_documents(), key=lambda document: -len(document.text))[:count]
        start = time.perf_counter()
        memories.add([document.text for document in longest])
        print(f"{count} memories added in {time.perf_counter() - start:.1f} s")
    index = TokenIndex(memories.tokens)
    everything = [(str(row), 0.0) for row in range(1, len(index) + 1)]
    for budget in (memories.model.config.tokens, 1):
        reranker = Reranker(memories.model, index, tokens=budget)
        reranker.rerank(question, everything)  # warm
        start = time.perf_counter()
        for _ in range(10):
            reranker.rerank(question, everything)
        taken = (time.perf_counter() - start) * 100
        print(f"{len(everything)} memories ranked in {taken:.0f} ms at {budget} embedding tokens each")
    for memory in memories.recall(question):
        print(f"{memory.score:7.2f}  {memories.text(memory)[:70]!r}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
