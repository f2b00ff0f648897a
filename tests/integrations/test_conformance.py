"""Every seam gives the ranking that Reranker gives, by docid and by text, and behaves alike on odd input."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from seams import SEAMS, Job, Ranked, langchain_documents, llama_index_nodes

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex

BY_DOCID = [pytest.param(seam, id=seam.__name__) for seam, (by_docid, _) in SEAMS.items() if by_docid]
BY_TEXT = [pytest.param(seam, id=seam.__name__) for seam, (_, by_text) in SEAMS.items() if by_text]
QUERY = "a dog barks at the moon"
Seam = Callable[[Job], Ranked]


@pytest.fixture(scope="module")
def saved(tiny: Callable[..., MixLM], tmp_path_factory: pytest.TempPathFactory) -> MixLM:
    """A model that can be loaded by its name, as Haystack does."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny("bert").save_pretrained(folder)
    return MixLM.from_pretrained(str(folder), device="cpu")


@pytest.fixture(scope="module")
def tokens(saved: MixLM, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> TokenIndex:
    return TokenIndex.build(documents, saved, tmp_path_factory.mktemp("tokens") / "index", progress=False)


@pytest.fixture(scope="module")
def expected(saved: MixLM, tokens: TokenIndex, documents: list[Document]) -> Ranked:
    docs = Reranker(saved, tokens).rerank(QUERY, [document.docid for document in documents])
    return [(doc.docid, doc.score) for doc in docs]


def check(found: Ranked, expected: Ranked) -> None:
    """The same order, the same scores, and Python floats: JSON chokes on NumPy's."""
    assert [docid for docid, _ in found] == [docid for docid, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=2e-5)
    assert all(type(score) is float for _, score in found)


@pytest.mark.parametrize("seam", BY_DOCID)
def test_by_docid_it_is_the_rerankers_ranking(
    seam: Seam, saved: MixLM, tokens: TokenIndex, documents: list[Document], expected: Ranked
) -> None:
    check(seam(Job(saved, tokens, QUERY, documents)), expected)
    check(seam(Job(saved, tokens, QUERY, documents[::-1])), expected)


@pytest.mark.parametrize("seam", BY_TEXT)
def test_by_text_the_scores_are_those_of_the_index(
    seam: Seam, saved: MixLM, documents: list[Document], expected: Ranked
) -> None:
    """Texts are quantised as in the index, so there is no difference at all."""
    check(seam(Job(saved, None, QUERY, documents)), expected)


@pytest.mark.parametrize("seam", BY_DOCID)
def test_documents_that_the_index_lacks_come_last_in_their_order(
    seam: Seam, saved: MixLM, tokens: TokenIndex, documents: list[Document], expected: Ranked
) -> None:
    unknown = [Document("x", "a text"), Document("y", "a dog barks at the moon")]
    found = seam(Job(saved, tokens, QUERY, [unknown[0], *documents, unknown[1]]))
    check(found[: len(expected)], expected)
    assert [docid for docid, _ in found[len(expected) :]] == ["x", "y"]
    assert all(score < -10_000 for _, score in found[len(expected) :])


@pytest.mark.parametrize("seam", BY_DOCID)
def test_an_empty_query_keeps_the_order_and_says_so(
    seam: Seam, saved: MixLM, tokens: TokenIndex, documents: list[Document]
) -> None:
    with pytest.warns(UserWarning, match="an empty query keeps the first stage's order"):
        found = seam(Job(saved, tokens, "\u200b ", documents[::-1]))
    assert [docid for docid, _ in found] == [document.docid for document in documents[::-1]]
    assert all(score < -10_000 for _, score in found)


@pytest.mark.parametrize("seam", [seam for seam in BY_TEXT if seam.id != "cross_encoder"])
def test_an_empty_list_stays_one(seam: Seam, saved: MixLM) -> None:
    assert seam(Job(saved, None, QUERY, [])) == []


@pytest.mark.parametrize("seam", BY_TEXT)
def test_a_document_without_a_word_is_last(
    seam: Seam, saved: MixLM, documents: list[Document], expected: Ranked
) -> None:
    found = seam(Job(saved, None, QUERY, [*documents[:2], Document("blank", "\u200b "), *documents[2:]]))
    check(found[:-1], expected)
    assert found[-1][0] == "blank"


@pytest.mark.parametrize("seam", BY_DOCID)
def test_ten_thousand_documents(seam: Seam, saved: MixLM, tokens: TokenIndex, expected: Ranked) -> None:
    many = [Document(f"x{number}", f"text {number}") for number in range(9994)]
    known = [Document(docid, "text") for docid, _ in expected]
    found = seam(Job(saved, tokens, QUERY, [*many[:5000], *known, *many[5000:]]))
    check(found[: len(expected)], expected)
    assert len(found) == 10_000


@pytest.mark.parametrize("seam", [seam for seam in BY_TEXT if seam.id in ("cross_encoder", "langchain", "rerankers")])
def test_the_same_text_twice_has_one_score(seam: Seam, saved: MixLM, documents: list[Document]) -> None:
    twice = [*documents, Document("again", documents[0].content)]
    scores = dict(seam(Job(saved, None, QUERY, twice)))
    assert scores["again"] == scores[documents[0].docid]


def test_what_the_caller_gave_is_not_changed(saved: MixLM, tokens: TokenIndex, documents: list[Document]) -> None:
    from mixlm_rerank.integrations.langchain import MixLMCompressor
    from mixlm_rerank.integrations.llama_index import MixLMRerank

    job = Job(saved, tokens, QUERY, documents)
    given = langchain_documents(job)
    before = copy.deepcopy(given)
    found = MixLMCompressor(reranker=job.reranker, top_n=2).compress_documents(given, QUERY)
    assert given == before
    assert found[0].metadata == {
        **given[0].metadata,
        "name": found[0].metadata["name"],
        "relevance_score": found[0].metadata["relevance_score"],
    }
    nodes = llama_index_nodes(job)
    seen = copy.deepcopy(nodes)
    kept = MixLMRerank(job.reranker, keep_retrieval_score=True, top_n=3).postprocess_nodes(nodes, query_str=QUERY)
    assert nodes == seen
    scores = {node.node.node_id: node.score for node in nodes}
    assert len(kept) == 3
    assert all(node.node.metadata["retrieval_score"] == scores[node.node.node_id] for node in kept)
