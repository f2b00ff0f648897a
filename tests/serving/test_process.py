"""The command: it starts, follows its index, batches, stops gently, and stands up again after a kill."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixlm_rerank import Document, MixLM, TokenIndex


def ask(url: str, docids: list[str]) -> httpx.Response:
    return httpx.post(f"{url}/v2/rerank", json={"query": "a dog", "document_ids": docids}, timeout=30)


def test_it_follows_its_index_and_stops_gently(
    start: Callable[..., Any], served_folder: tuple[Path, Path], model: MixLM, tmp_path: Path
) -> None:
    index = TokenIndex(served_folder[1]).copy(tmp_path / "copy", progress=False)
    served = start(index.path)
    url, process = served.url, served.process
    assert ask(url, ["new"]).json()["results"][0]["missing"]
    index.add([Document("new", "a new dog")], model, progress=False)
    index.delete(["d2"])
    index.compact(progress=False)
    answer = ask(url, ["new", "d2", "d1"]).json()["results"]
    assert {result["document_id"]: result.get("missing") for result in answer} == {"new": None, "d1": None, "d2": True}
    with ThreadPoolExecutor(8) as pool:
        many = {"query": "a dog", "documents": [f"a dog {number} " * 100 for number in range(300)]}
        answers = [pool.submit(httpx.post, f"{url}/v2/rerank", json=many, timeout=60) for _ in range(4)]
        taken = "mixlm_waiting_candidates 1200.0"
        while taken not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert [future.result().status_code for future in answers] == [200] * 4
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert '"path": "/v2/rerank", "status": 200' in served.out.read_text()
    assert "Traceback" not in served.err.read_text()


def test_killed_under_load_it_serves_again(start: Callable[..., Any], served_folder: tuple[Path, Path]) -> None:
    served = start()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, served.url, ["d1", "d2", "d3"]) for _ in range(40)]
        time.sleep(0.1)
        served.process.kill()
        for future in futures:
            if future.exception() is None:
                assert future.result().status_code == 200
    assert not TokenIndex.verify(served_folder[1], progress=False).damaged
    assert ask(start().url, ["d1"]).status_code == 200


def test_headers_have_a_limit(start: Callable[..., Any]) -> None:
    served = start()
    try:
        status = httpx.get(f"{served.url}/ready", headers={"x": "a" * 2_000_000}, timeout=30).status_code
    except httpx.TransportError:  # it hangs up
        status = 400
    assert status in (400, 431)
    assert httpx.get(f"{served.url}/ready").status_code == 200


def test_concurrent_requests_are_scored_together(start: Callable[..., Any]) -> None:
    """And each gets the answer that it gets alone."""
    url = start().url
    queries = [f"{'a dog ' * (number % 5)}{'barks ' * number}moon" for number in range(24)]
    docids = ["d1", "d2", "d3", "d4"]

    def scores(query: str) -> dict[int, float]:
        body = {"query": query, "document_ids": docids, "raw_scores": True}
        results = httpx.post(f"{url}/v2/rerank", json=body, timeout=30).json()["results"]
        return {result["index"]: result["relevance_score"] for result in results}

    alone = [scores(query) for query in queries]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(scores, queries))
    for number, (found, expected) in enumerate(zip(together, alone, strict=True)):
        assert found == pytest.approx(expected, abs=1e-4)
        assert found != pytest.approx(alone[number - 1], abs=1e-4)  # another's answer would be seen
    page = httpx.get(f"{url}/metrics").text
    count = next(line for line in page.splitlines() if line.startswith("mixlm_batch_requests_count"))
    assert float(count.split()[1]) < 2 * len(queries)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--model a/tiny --model b/tiny", "--model tiny is given twice, as a/tiny and as b/tiny"),
        ("--index tokens", "expected NAME=FOLDER or NAME=redis://"),
        ("--index a=nowhere", "no token index at nowhere"),
        ("--model nowhere/model", "nowhere/model"),
        ("--api-key-env NO_SUCH_VARIABLE", "the environment variable NO_SUCH_VARIABLE is empty"),
        ("--index a=redis://127.0.0.1:1/0#a", "does not answer"),
    ],
)
def test_what_cannot_be_served_is_said_before_it_listens(mixlm: Any, options: str, error: str) -> None:
    done = mixlm(f"serve --offline --device cpu {options}")
    assert done.code == 2 and error in done.err
