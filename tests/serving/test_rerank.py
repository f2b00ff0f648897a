"""POST /v2/rerank gives what Reranker gives: by docid, by text, by both; to plain clients and real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from mixlm_rerank import Candidate, Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.app import Limits
from mixlm_rerank.serving.catalogue import Catalogue

QUERY = "a dog barks at the moon"
AS_JSON = {"Content-Type": "application/json"}
Post = Callable[..., httpx.Response]


@pytest.fixture
def expected(model: MixLM, index: TokenIndex, documents: list[Document]) -> list[tuple[int, float]]:
    """Places in ``documents`` and log-odds, best first."""
    docids = [document.docid for document in documents]
    return [(docids.index(doc.docid), doc.score) for doc in Reranker(model, index).rerank(QUERY, docids)]


def ranking(answer: httpx.Response) -> list[tuple[int, float]]:
    assert answer.status_code == 200, answer.text
    return [(result["index"], result["relevance_score"]) for result in answer.json()["results"]]


def check(found: list[tuple[int, float]], expected: list[tuple[int, float]], raw: bool = True) -> None:
    assert [place for place, _ in found] == [place for place, _ in expected]
    scores = [score if raw else 1 / (1 + math.exp(-score)) for _, score in expected]
    assert [score for _, score in found] == pytest.approx(scores, abs=1e-4)


def test_by_docid_by_text_and_by_both(post: Post, documents: list[Document], expected: list[tuple[int, float]]) -> None:
    docids = [document.docid for document in documents]
    texts = [document.content for document in documents]
    as_objects = [{"text": text, "other": 1} for text in texts]
    for given in (
        {"document_ids": docids},
        {"document_ids": docids, "index": "docs", "model": "tiny"},
        {"documents": texts},
        {"documents": as_objects},
        {"documents": ["not read"] * len(docids), "document_ids": docids},
    ):
        check(ranking(post(query=QUERY, raw_scores=True, **given)), expected)
        check(ranking(post(query=QUERY, **given)), expected, raw=False)
        check(ranking(post(query=QUERY, raw_scores=True, top_n=2, **given)), expected[:2])


def test_a_threshold_is_on_the_scores_that_are_asked_for(post: Post, documents: list[Document]) -> None:
    given = {"query": QUERY, "document_ids": [*(document.docid for document in documents), "x"]}
    for raw in (False, True):
        whole = ranking(post(raw_scores=raw, **given))
        for kept in (0, 2, len(documents)):
            least = whole[kept - 1][1] if kept else whole[0][1] + 1
            assert ranking(post(raw_scores=raw, score_threshold=least, **given)) == whole[:kept]
    assert post(score_threshold="high", **given).status_code == 422


def test_many_queries_in_one_call(url: str, post: Post) -> None:
    asked = [
        {"query": QUERY, "document_ids": ["d1", "d2", "d3"]},
        {"query": "cats", "documents": ["a dog", "a cat"], "top_n": 1, "raw_scores": True},
    ]
    answer = httpx.post(f"{url}/v2/rerank/batch", json={"requests": asked})
    assert answer.status_code == 200, answer.text
    for found, one in zip(answer.json()["responses"], asked, strict=True):
        alone = post(**one)
        places, scores = zip(*ranking(alone), strict=True)
        assert tuple(result["index"] for result in found["results"]) == places
        assert [result["relevance_score"] for result in found["results"]] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [
        ({"query": QUERY, "document_ids": ["x"], "missing": "error"}, 404, "requests.1: "),
        ({"query": " ", "documents": ["a"]}, 400, "requests.1: query is empty"),
        ({"query": QUERY, "documents": 7}, 422, "requests.1.documents"),
    ],
)
def test_a_batch_says_which_request_is_wrong(url: str, wrong: dict[str, object], status: int, message: str) -> None:
    asked = [{"query": QUERY, "document_ids": ["d1"]}, wrong]
    answer = httpx.post(f"{url}/v2/rerank/batch", json={"requests": asked})
    assert answer.status_code == status and answer.json()["message"].startswith(message), answer.text
    assert httpx.post(f"{url}/v2/rerank/batch", json={"requests": []}).status_code == 422


def test_fields_that_are_blank_are_no_text(post: Post) -> None:
    """What joins them would be read."""
    blank = {"a": "\u200b", "b": " "}
    found = post(query=QUERY, documents=[blank, {"a": "a dog", "b": ""}], rank_fields=["a", "b"]).json()["results"]
    assert [(result["index"], result.get("missing")) for result in found] == [(1, None), (0, True)]


def test_the_contract_of_text_embeddings_inference(url: str, post: Post, documents: list[Document]) -> None:
    texts = [document.content for document in documents]
    expected = ranking(post(query=QUERY, documents=texts))
    body = {"query": QUERY, "texts": texts, "truncate": True}
    answer = httpx.post(f"{url}/rerank", json=body).json()
    assert [(result["index"], result["score"]) for result in answer] == expected and "text" not in answer[0]
    answer = httpx.post(f"{url}/rerank", json={**body, "return_text": True, "raw_scores": True}).json()
    assert answer[0]["text"] == texts[answer[0]["index"]]
    assert 1 / (1 + math.exp(-answer[0]["score"])) == pytest.approx(expected[0][1], abs=1e-6)
    for wrong, said in (({"texts": ["a"]}, "query: "), ({"query": "q", "texts": "a"}, "texts: ")):
        refused = httpx.post(f"{url}/rerank", json=wrong)
        assert refused.status_code in (400, 422) and refused.json()["message"].startswith(said), refused.text


def test_the_paths_of_older_clients(url: str, documents: list[Document]) -> None:
    body = {"query": QUERY, "document_ids": [document.docid for document in documents]}
    answers = [httpx.post(f"{url}{path}", json=body).json() for path in ("/v2/rerank", "/v1/rerank", "/rerank")]
    assert answers[0]["results"] == answers[1]["results"] == answers[2]["results"]
    assert answers[0]["model"] == "tiny" and answers[0]["meta"]["api_version"] == {"version": "2"}


def test_documents_come_back_where_asked_for(post: Post) -> None:
    answer = post(query=QUERY, documents=["a dog", {"text": "a cat"}], return_documents=True).json()
    assert {result["index"]: result["document"]["text"] for result in answer["results"]} == {0: "a dog", 1: "a cat"}
    answer = post(query=QUERY, documents=["a dog"]).json()
    assert "document" not in answer["results"][0] and "missing" not in answer["results"][0]


def test_missing_documents(post: Post) -> None:
    """Last, with a score of 0; encoded where there is a text; or an error."""
    answer = post(query=QUERY, document_ids=["x", "d1"]).json()
    assert [(result["document_id"], result.get("missing")) for result in answer["results"]] == [
        ("d1", None),
        ("x", True),
    ]
    assert answer["results"][1]["relevance_score"] == 0 and answer["usage"]["missing"] == 1
    both = post(query=QUERY, document_ids=["x", "d1"], documents=["a dog barks", "not read"]).json()
    assert not any(result.get("missing") for result in both["results"])
    kept = post(query=QUERY, document_ids=["x", "d1"], documents=["a dog", "not read"], missing="last").json()
    assert kept["results"][1]["missing"]
    strict = post(query=QUERY, document_ids=["x", "d1"], missing="error")
    assert strict.status_code == 404 and "lacks candidates: 'x'" in strict.json()["message"]
    without = post(query=QUERY, document_ids=["x"], missing="encode")
    assert without.status_code == 404 and "no text was given to encode" in without.json()["message"]


def test_a_missing_document_has_no_score_that_one_could_take_for_one(post: Post) -> None:
    """0 beside ``missing``, and as log-odds below all that there are."""
    for given in ({"document_ids": ["x", "d1"]}, {"documents": [" ", "a dog"]}):
        raw = post(query=QUERY, raw_scores=True, **given).json()["results"]
        assert [result["relevance_score"] < -10_000 for result in raw] == [False, True] and raw[1]["missing"]
        plain = post(query=QUERY, **given).json()["results"]
        assert plain[1]["relevance_score"] == 0 and plain[1]["missing"] and "missing" not in plain[0]


def test_passages_of_a_docid_that_the_index_lacks_are_each_read(post: Post, model: MixLM) -> None:
    texts = ["a dog barks at the moon", "cats sleep all day"]
    found = ranking(post(query=QUERY, documents=texts, document_ids=["n", "n"], raw_scores=True))
    for place, score in found:
        (alone,) = Reranker(model).rerank(QUERY, [Candidate("d", 0.0, texts[place])])
        assert score == pytest.approx(alone.score, abs=1e-4)
    assert sorted(place for place, _ in found) == [0, 1]


def test_fields_of_objects_are_read_in_the_order_asked_for(post: Post, documents: list[Document]) -> None:
    """As Cohere's older clients name them; title and text as an index reads them."""
    objects = [{"title": document.title or None, "body": document.text} for document in documents]
    found = ranking(post(query=QUERY, documents=objects, rank_fields=["title", "body"]))
    assert found == ranking(post(query=QUERY, documents=[document.content for document in documents]))


def test_of_a_text_made_to_hold_us_up_the_beginning_is_read(post: Post, model: MixLM) -> None:
    """Tokenizers read all that they are given."""
    text = "a dog barks at the moon " * 400_000
    (whole,) = ranking(post(query=QUERY, documents=[text], raw_scores=True))
    (doc,) = Reranker(model).rerank(QUERY, [Candidate("d", 0.0, text[:10_000])])
    assert whole[1] == pytest.approx(doc.score, abs=1e-4)


def test_a_docid_twice_has_one_score(post: Post) -> None:
    """Passages of one document."""
    results = post(query=QUERY, document_ids=["d1", "d2", "d1"]).json()["results"]
    scores = {result["index"]: result["relevance_score"] for result in results}
    assert len(results) == 3 and scores[0] == scores[2] != scores[1]


def test_texts_are_cut(post: Post, model: MixLM) -> None:
    text = "a dog barks at the moon and at the mail man " * 3
    cut = ranking(post(query=QUERY, documents=[text], max_tokens_per_doc=3, raw_scores=True))
    (doc,) = Reranker(model).rerank(QUERY, [Candidate("d", 0.0, "a dog barks")])
    assert cut == [(0, pytest.approx(doc.score, abs=1e-4))]


def test_half_a_surrogate_pair_is_given_back(url: str) -> None:
    """JSON can hold it: clients that cut strings of UTF-16 send it."""
    docid, text = "x\ud83d", "a dog \ud83d"
    body = {"query": text, "document_ids": [docid], "documents": [text], "return_documents": True}
    for limited in ({}, {"max_tokens_per_doc": 2}):
        answer = httpx.post(f"{url}/v2/rerank", content=json.dumps(body | limited), headers=AS_JSON)
        (result,) = answer.json()["results"]
        assert result["document_id"] == docid and result["document"]["text"] == text


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_budgets(post: Post, model: MixLM, index: TokenIndex, documents: list[Document], tokens: int) -> None:
    docids = [document.docid for document in documents]
    docs = Reranker(model, index, tokens=tokens).rerank(QUERY, docids)
    found = ranking(post(query=QUERY, document_ids=docids, tokens=tokens, raw_scores=True))
    assert [docids[place] for place, _ in found] == [doc.docid for doc in docs]


def test_concurrent_requests_are_scored_together(
    served: Callable[..., str], held: Any, metrics: Callable[..., str], model: MixLM, index: TokenIndex
) -> None:
    """While one is scored the others wait, and are the next batch; each gets the answer that it gets alone."""
    url = served(Catalogue({"tiny": model}, {"docs": index}), Limits(seconds=60))
    queries = [f"{'a dog ' * (number % 5)}{'barks ' * number}moon" for number in range(12)]
    docids = ["d1", "d2", "d3", "d4"]

    def scores(query: str) -> dict[int, float]:
        body = {"query": query, "document_ids": docids, "raw_scores": True}
        results = httpx.post(f"{url}/v2/rerank", json=body, timeout=60).json()["results"]
        return {result["index"]: result["relevance_score"] for result in results}

    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(scores, queries[0])]
        assert held.begun.wait(60)
        answers += [pool.submit(scores, query) for query in queries[1:]]
        metrics(url, "mixlm_waiting_candidates 48.0")
        held.go.set()
        together = [answer.result() for answer in answers]
    metrics(url, "mixlm_batch_requests_count 2.0")
    alone = [scores(query) for query in queries]
    for number, (found, expected) in enumerate(zip(together, alone, strict=True)):
        assert found == pytest.approx(expected, abs=1e-4)
        assert found != pytest.approx(alone[number - 1], abs=1e-3)  # another's answer would be seen


def test_cutting_texts_beside_ranking_changes_no_score(post: Post, documents: list[Document]) -> None:
    """A tokenizer that two threads share would be told to cut the one's texts by the other."""
    texts = [document.content for document in documents] * 3
    plain: dict[str, Any] = {"query": QUERY, "documents": texts, "raw_scores": True}
    expected = ranking(post(**plain))
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, **plain, **({"max_tokens_per_doc": 1} if turn % 2 else {})) for turn in range(40)]
        for turn, answer in enumerate(answers):
            found = ranking(answer.result())
            if turn % 2 == 0:
                check(found, expected)


def test_how_long_each_stage_takes_is_counted(
    served: Callable[..., str], metrics: Callable[..., str], model: MixLM, index: TokenIndex
) -> None:
    url = served(Catalogue({"tiny": model}, {"docs": index}))
    body = {"query": QUERY, "document_ids": ["d1", "x"], "documents": ["not read", "a dog of these stages"]}
    assert httpx.post(f"{url}/v2/rerank", json=body).status_code == 200
    for stage in ("prepare", "queue", "index", "encode", "score"):
        metrics(url, f'mixlm_stage_seconds_count{{stage="{stage}"}} 1.0')
