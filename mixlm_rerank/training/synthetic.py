"""Queries where nobody has any: titles and sentences of the corpus itself."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from itertools import islice, zip_longest

from mixlm_rerank.errors import InputError
from mixlm_rerank.types import Document

__all__ = ["synthetic_queries"]

FEWEST_WORDS, MOST_WORDS = 3, 24
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def synthetic_queries(documents: Iterable[Document], count: int, seed: int = 0) -> dict[str, str]:
    """At most ``count`` queries, qid -> text: titles and sentences of 3 to 24 words, each query another text.

    From as many documents as there are queries, drawn at random; from fewer in turn, one from each and then the next.
    A document's title or a sentence comes first with the same chance. Memory: ``count`` documents.

    Raises InputError if no document has such a title or sentence.
    """
    draw = random.Random(seed)
    kept: list[Document] = []
    for number, document in enumerate(documents):  # reservoir sampling: the corpus is read once
        if len(kept) < count:
            kept.append(document)
        elif (place := draw.randrange(number + 1)) < count:
            kept[place] = document
    offers = [_offers(document, draw) for document in sorted(kept, key=lambda document: document.docid)]
    in_turn = (text for turn in zip_longest(*offers) for text in turn if text is not None)
    texts = list(islice(dict.fromkeys(in_turn), count))
    if not texts:
        raise InputError(
            f"no title or sentence of {FEWEST_WORDS} to {MOST_WORDS} words to make queries of: give a file of queries"
        )
    return {f"s{number}": text for number, text in enumerate(texts, 1)}


def _offers(document: Document, draw: random.Random) -> list[str]:
    """What a document can be asked by, in random order."""
    title, sentences = _fitting([document.title]), _fitting(SENTENCE_END.split(document.text))
    draw.shuffle(sentences)
    return [*title, *sentences] if draw.random() < 0.5 else [*sentences[:1], *title, *sentences[1:]]


def _fitting(texts: Iterable[str]) -> list[str]:
    clean = (" ".join(text.split()) for text in texts)
    return [text for text in clean if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS]
