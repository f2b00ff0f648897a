"""Two corpora are the same if they hold the same documents, in whatever order; anything else shows."""

from __future__ import annotations

import pytest

from mixlm_rerank import Document
from mixlm_rerank.data.corpus import identify

CORPUS = [Document("1", "A dog.", "Dogs"), Document("2", "A cat."), Document("3", "half a pair \ud83d")]


def test_order_and_documents_without_text_do_not_matter() -> None:
    whole = identify(CORPUS)
    assert whole == identify([Document("0", " "), *reversed(CORPUS)])
    assert (whole.documents, len(whole.digest)) == (3, 64)


@pytest.mark.parametrize(
    "changed",
    [
        CORPUS[:2],
        [*CORPUS, CORPUS[0]],
        [Document("1", "A dog!", "Dogs"), *CORPUS[1:]],
        [Document("4", "A dog.", "Dogs"), *CORPUS[1:]],
        [Document("1", "DogsA dog."), *CORPUS[1:]],
        [Document("1", "A cat.", "Dogs"), Document("2", "A dog."), CORPUS[2]],
    ],
)
def test_any_change_of_a_document_shows(changed: list[Document]) -> None:
    assert identify(changed) != identify(CORPUS)
