"""docs/search-engines.md: Qdrant's own client; what the others send, filled in and read as their manuals say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.catalogue import Catalogue

PAGE = (Path(__file__).parent.parent.parent / "docs" / "search-engines.md").read_text(encoding="utf-8")
QUERY = 'a "dog" barks\nat the moon'


def call(line: str) -> Any:
    """The JSON body below a ``METHOD path`` line of the page."""
    return json.JSONDecoder().raw_decode(PAGE, PAGE.index("{", PAGE.index(f"\n{line}\n")))[0]


@pytest.fixture
def expected(model: MixLM, index: TokenIndex, documents: list[Document]) -> dict[str, float]:
    """docid -> probability, best first."""
    found = Reranker(model, index).rerank(QUERY, [document.docid for document in documents])
    return {doc.docid: sigmoid(doc.score) for doc in found}


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def filled(template: str, values: dict[str, str]) -> dict[str, Any]:
    for name, value in values.items():
        assert f"${{{name}}}" in template
        template = template.replace(f"${{{name}}}", value)
    assert "${" not in template
    body: dict[str, Any] = json.loads(template)
    return body


def check(scores: dict[str, float], expected: dict[str, float]) -> None:
    assert sorted(scores, key=lambda docid: -scores[docid]) == list(expected)
    assert scores == pytest.approx(expected, abs=1e-5)


def escaped(text: str) -> str:
    """As the inside of a JSON string: OpenSearch's connector fills parameters in like this."""
    return json.dumps(text)[1:-1]


def test_opensearch_by_docid_in_one_call(
    post: Callable[..., httpx.Response], documents: list[Document], expected: dict[str, float]
) -> None:
    """The rerank processor sends the document field's values; Cohere's post-process sorts the scores by ``index``."""
    (action,) = call("POST /_plugins/_ml/connectors/_create")["actions"]
    (processor,) = call("PUT /_search/pipeline/mixlm")["response_processors"]
    (field,) = processor["rerank"]["context"]["document_fields"]
    hits = [{"_source": {"docid": document.docid, "text": document.text}} for document in documents]
    sent = [hit["_source"][field] for hit in hits]
    values = {"parameters.query": escaped(QUERY), "parameters.documents": json.dumps(sent)}
    answer = post(**filled(action["request_body"], values)).raise_for_status().json()
    by_place = {result["index"]: result["relevance_score"] for result in answer["results"]}
    check({document.docid: by_place[place] for place, document in enumerate(documents)}, expected)


def test_opensearch_by_field_in_a_call_a_hit(
    post: Callable[..., httpx.Response], documents: list[Document], expected: dict[str, float]
) -> None:
    (quoted,) = re.findall(r'`("\{.*?\[.*?parameters\.docid.*?\}")`', PAGE)
    inference, rerank = call("PUT /_search/pipeline/mixlm-by-field")["response_processors"]
    ((target, path),) = inference["ml_inference"]["output_map"][0].items()
    assert target == rerank["rerank"]["by_field"]["target_field"] and path == "$.results[0].relevance_score"
    assert set(inference["ml_inference"]["input_map"][0]) == {"docid", "query"}
    scores = {}
    for document in documents:
        values = {"parameters.query": escaped(QUERY), "parameters.docid": escaped(document.docid)}
        answer = post(**filled(json.loads(quoted), values)).raise_for_status().json()
        scores[document.docid] = answer["results"][0]["relevance_score"]
    check(scores, expected)


def test_elasticsearch_custom_inference(
    post: Callable[..., httpx.Response], documents: list[Document], expected: dict[str, float]
) -> None:
    """Templates stand for JSON values; the two paths of the parser give aligned lists."""
    settings = call("PUT _inference/rerank/mixlm")["service_settings"]
    retriever = call("POST wiki/_search")["retriever"]["text_similarity_reranker"]
    assert retriever["field"] == "docid"
    values = {"query": json.dumps(QUERY), "input": json.dumps([document.docid for document in documents])}
    answer = post(**filled(settings["request"], values)).raise_for_status().json()
    parser = settings["response"]["json_parser"]
    places, scores = (
        [result[re.fullmatch(r"\$\.results\[\*\]\.(\w+)", parser[name]).group(1)] for result in answer["results"]]  # type: ignore[union-attr]
        for name in ("reranked_index", "relevance_score")
    )
    check({documents[place].docid: score for place, score in zip(places, scores, strict=True)}, expected)


def test_weaviate_sends_texts(
    post: Callable[..., httpx.Response], documents: list[Document], expected: dict[str, float]
) -> None:
    """The body of its reranker-cohere module."""
    texts = [document.content for document in documents]
    answer = post(documents=texts, query=QUERY, model="tiny", return_documents=False).raise_for_status().json()
    assert {"id", "results", "meta"} <= set(answer)
    check({documents[result["index"]].docid: result["relevance_score"] for result in answer["results"]}, expected)


def test_the_qdrant_example_runs(
    served: Callable[..., str],
    documents: list[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With Qdrant's client, in its own memory."""
    model = MixLM.from_pretrained("default", device="cpu")
    index = TokenIndex.build(documents, model, tmp_path / "tokens", progress=False)
    monkeypatch.setenv("MIXLM_SERVER", served(Catalogue({"default": model}, {"docs": index})))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(code, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = Reranker(model, index).rerank("what do dogs bark at?", ["d1", "d2", "d4"])
    assert [docid for docid, *_ in printed] == [doc.docid for doc in found]
