"""Queries where nobody has any."""

from __future__ import annotations

import pytest

from mixlm_rerank import Document
from mixlm_rerank.errors import InputError
from mixlm_rerank.training.pools import synthetic_queries


def test_queries_are_titles_and_sentences_of_the_corpus() -> None:
    documents = [
        Document(f"d{n}", f"First sentence number {n}. Second sentence, of {n}!", title=f"The title {n}")
        for n in range(50)
    ]
    found = synthetic_queries(iter(documents), 20, seed=1)
    assert len(found) == len(set(found.values())) == 20
    assert found == synthetic_queries(documents, 20, seed=1) != synthetic_queries(documents, 20, seed=2)
    everything = {text for d in documents for text in (d.title, *d.text.replace("! ", "!").split(". "))}
    assert all(text.rstrip(".") in {one.rstrip(".") for one in everything} for text in found.values())
    assert {text.startswith("The title") for text in found.values()} == {True, False}
    more = synthetic_queries(documents[:5], 12, seed=1)  # each has three, and is asked by two before any by its third
    assert len(set(more.values())) == 12
    assert {sum(text.rstrip(".!").endswith(f" {n}") for text in more.values()) for n in range(5)} == {2, 3}
    assert len(synthetic_queries(documents[:5], 100)) == 15
    with pytest.raises(InputError, match="no title or sentence of 3 to 24 words"):
        synthetic_queries([Document("a", "too short"), Document("b", "word " * 30)], 5)
