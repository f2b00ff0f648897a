"""Clients that people have get the ranking of ``Reranker``, unchanged but for the address."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.catalogue import Catalogue

QUERY = "a dog barks at the moon"


@pytest.fixture
def expected(model: MixLM, index: TokenIndex, documents: list[Document]) -> list[tuple[int, float]]:
    """Places in ``documents`` and probabilities, best first."""
    docids = [document.docid for document in documents]
    docs = Reranker(model, index).rerank(QUERY, docids)
    return [(docids.index(doc.docid), 1 / (1 + math.exp(-doc.score))) for doc in docs]


def check(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [place for place, _ in found] == [place for place, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_cohere(url: str, documents: list[Document], expected: list[tuple[int, float]]) -> None:
    import cohere

    client = cohere.ClientV2("no key", base_url=url)
    answer = client.rerank(model="tiny", query=QUERY, documents=[document.content for document in documents], top_n=3)
    check([(result.index, result.relevance_score) for result in answer.results], expected[:3])


def test_cohere_by_docid(url: str, documents: list[Document], expected: list[tuple[int, float]]) -> None:
    """As docs/server.md says: the client sends our fields beside its own."""
    import cohere

    ours = {"documents": None, "document_ids": [document.docid for document in documents], "index": "docs"}
    client = cohere.ClientV2("no key", base_url=url)
    answer = client.rerank(
        model="tiny", query=QUERY, documents=[], request_options={"additional_body_parameters": ours}
    )
    check([(result.index, result.relevance_score) for result in answer.results], expected)


def test_coheres_older_client(url: str, documents: list[Document], expected: list[tuple[int, float]]) -> None:
    import cohere

    client = cohere.Client("no key", base_url=url)
    texts: list[Any] = [{"text": document.content} for document in documents]
    answer = client.rerank(model="tiny", query=QUERY, documents=texts, return_documents=True)
    check([(result.index, result.relevance_score) for result in answer.results], expected)
    assert answer.results[0].document.text == documents[expected[0][0]].content


def test_langchain_cohere(url: str, documents: list[Document], expected: list[tuple[int, float]]) -> None:
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document as LangChainDocument

    compressor = CohereRerank(model="tiny", cohere_api_key="no key", base_url=url, top_n=3)
    given = [
        LangChainDocument(page_content=document.content, metadata={"place": place})
        for place, document in enumerate(documents)
    ]
    found = compressor.compress_documents(given, QUERY)
    check([(doc.metadata["place"], doc.metadata["relevance_score"]) for doc in found], expected[:3])


@pytest.mark.parametrize("whose", ["cohere", "jina"])
def test_llama_index(url: str, documents: list[Document], expected: list[tuple[int, float]], whose: str) -> None:
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    postprocessor: Any
    if whose == "cohere":
        from llama_index.postprocessor.cohere_rerank import CohereRerank

        postprocessor = CohereRerank(top_n=3, model="tiny", api_key="no key", base_url=url)
    else:
        from llama_index.postprocessor.jinaai_rerank import JinaRerank

        postprocessor = JinaRerank(top_n=3, model="tiny", api_key="no key", base_url=url)
    nodes = [
        NodeWithScore(node=TextNode(id_=str(place), text=document.content)) for place, document in enumerate(documents)
    ]
    found = postprocessor.postprocess_nodes(nodes, QueryBundle(QUERY))
    check([(int(node.node.node_id), node.score) for node in found], expected[:3])


def test_curl(url: str) -> None:
    command = ["curl", "-s", f"{url}/v2/rerank", "-H", "Content-Type: application/json", "-d"]
    body = '{"query": "a dog", "documents": ["a dog", "a cat"]}'
    done = subprocess.run([*command, body], capture_output=True, text=True)
    assert '"relevance_score":' in done.stdout and '"index":0' in done.stdout.replace(" ", "")


def test_the_tutorials_server_answers(
    served: Callable[..., str],
    documents: list[Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its curl by docid and its client by text."""
    page = (Path(__file__).parents[2] / "docs" / "tutorials" / "serve.md").read_text(encoding="utf-8")
    model = MixLM.from_pretrained("default", device="cpu")
    index = TokenIndex.build(documents, model, tmp_path / "tokens", progress=False)
    address = served(Catalogue({"default": model}, {"docs": index}))
    (body,) = re.findall(r"^  -d '(.*)'$", page, flags=re.MULTILINE)
    answer = httpx.post(f"{address}/v2/rerank", json=json.loads(body), timeout=30).raise_for_status().json()
    assert [result["document_id"] for result in answer["results"]] == ["d1"]
    monkeypatch.setenv("MIXLM_SERVER", address)
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(code, {})
    assert "A dog barks" in capsys.readouterr().out.splitlines()[0]
