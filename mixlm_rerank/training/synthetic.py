"""Queries where nobody has any: titles and sentences of the corpus itself."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from mixlm_rerank.errors import InputError
from mixlm_rerank.types import Document

__all__ = ["synthetic_queries"]

FEWEST_WORDS, MOST_WORDS = 3, 24
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def synthetic_queries(documents: Iterable[Document], count: int, seed: int = 0) -> dict[str, str]:
    """At most ``count`` queries, qid -> text, each of another document drawn at random: its title, or a sentence.

    Either is taken with the same chance, where both are 3 to 24 words long. Memory: ``count`` documents.

    Raises InputError if no document has such a title or sentence.
    """
    draw = random.Random(seed)
    kept: list[Document] = []
    for number, document in enumerate(documents):  # reservoir sampling: the corpus is read once
        if len(kept) < count:
            kept.append(document)
        elif (place := draw.randrange(number + 1)) < count:
            kept[place] = document
    found: dict[str, str] = {}
    for document in sorted(kept, key=lambda document: document.docid):
        titles = _fitting([document.title])
        sentences = _fitting(SENTENCE_END.split(document.text))
        kinds = [kind for kind in (titles, sentences) if kind]
        if kinds:
            query = draw.choice(draw.choice(kinds))
            if query not in found.values():
                found[f"s{len(found) + 1}"] = query
    if not found:
        raise InputError(
            f"no title or sentence of {FEWEST_WORDS} to {MOST_WORDS} words to make queries of: give a file of queries"
        )
    return found


def _fitting(texts: Iterable[str]) -> list[str]:
    clean = (" ".join(text.split()) for text in texts)
    return [text for text in clean if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS]
