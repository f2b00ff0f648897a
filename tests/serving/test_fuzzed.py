"""Schemathesis over the server's own OpenAPI, and random and mutated bodies: no 5xx, no hang, no leak."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.processes

VALID: list[dict[str, Any]] = [
    {"query": "a dog", "documents": ["a dog barks", {"text": "cats sleep"}]},
    {"query": "a dog", "document_ids": ["d1", "d2", "d3"], "index": "docs", "top_n": 2},
    {"query": "a dog", "document_ids": ["d1", "x"], "documents": ["a", "b"], "return_documents": True, "tokens": 2},
    {"query": "moon", "document_ids": ["d4", "y"], "missing": "last", "raw_scores": True, "model": "tiny"},
    {"query": "moon", "documents": ["the moon " * 20], "max_tokens_per_doc": 5},
    {"query": "moon", "document_ids": ["d1", "x", "d2"], "documents": ["a", "b", "c"], "verify_top": 2},
]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", " ", "\0", "\ud800", "é" * 50, "𝔘", "\u202e", "a" * 5000, "d1", "docs", "tiny", "null", "[]", "<script>",
    "../..", [], {},
    [None], [[]], [{}], {"text": None}, {"text": 3}, {"text": "a"}, ["d1", "d1"], ["a"] * 200, [0.1] * 3,
]  # fmt: skip
ANSWERED = {200, 400, 404, 409, 413, 422, 429}


def mutated(chance: random.Random) -> bytes:
    """A valid body with some of its values, keys or bytes changed; or no JSON at all."""
    if chance.random() < 0.03:
        return chance.randbytes(chance.randrange(300))
    body = json.loads(json.dumps(chance.choice(VALID)))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        _change(body, chance)
    text = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.7:
        return text
    data = bytearray(text)
    for _ in range(chance.choice((1, 1, 3, 20))):
        place = chance.randrange(len(data) + 1)
        change = chance.randrange(4)
        if change == 0:
            data[place : place + 1] = chance.randbytes(1)
        elif change == 1:
            del data[place : place + chance.randrange(10)]
        elif change == 2:
            data[place:place] = chance.choice((b"[" * 2000, b"{", b'"', b"\\u", b"9" * 400, b"\xff", b",,", b"1e999"))
        else:
            data[place:place] = data[: chance.randrange(50)]
    return bytes(data)


def _change(body: dict[str, Any], chance: random.Random) -> None:
    at: Any = body
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(at[key], (dict, list)) and at[key] and chance.random() < 0.5:
            at = at[key]
            continue
        what = chance.randrange(4)
        if what == 0:
            del at[key]
        elif what == 1 and isinstance(at, dict):
            name = chance.choice(("query", "documents", "document_ids", "tokens", "verify_top", "other", ""))
            at[name] = copy.deepcopy(chance.choice(ODD))
        else:
            at[key] = copy.deepcopy(chance.choice(ODD))
        return


@pytest.fixture(scope="module")
def running(
    start_for_all: Callable[..., Any], served_folder: tuple[Path, Path], cross_encoder: Callable[..., Path]
) -> Any:
    """A server in a process of its own, which these tests share."""
    return start_for_all(served_folder[1], "--verify-with", str(cross_encoder()))


def test_headers_have_a_limit(running: Any) -> None:
    try:
        status = httpx.get(f"{running.url}/ready", headers={"x": "a" * 2_000_000}, timeout=60).status_code
    except httpx.TransportError:  # it hangs up
        status = 400
    assert status in (400, 431)
    assert httpx.get(f"{running.url}/ready").status_code == 200


@pytest.mark.parametrize("count", [1_000, pytest.param(50_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_mutated_bodies(running: Any, count: int) -> None:
    """Each is answered, as the documentation says. The second half takes no memory and no file of its own."""
    process = psutil.Process(running.process.pid)
    answers: Counter[int] = Counter()

    def some(seed: int) -> Counter[int]:
        chance = random.Random(seed)
        found: Counter[int] = Counter()
        with httpx.Client(base_url=running.url, timeout=60) as client:
            for _ in range(count // 40):
                body = mutated(chance)
                answer = client.post("/v2/rerank", content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code in ANSWERED, (answer.status_code, body, answer.text)
                told = answer.json()
                assert "results" in told if answer.status_code == 200 else list(told) == ["message"], body
                found[answer.status_code] += 1
        return found

    held = []
    with ThreadPoolExecutor(8) as pool:
        for half in (range(20), range(20, 40)):
            for found in pool.map(some, half):
                answers += found
            held.append((process.memory_info().rss, process.num_fds(), process.num_threads()))
    assert answers.total() == count // 40 * 40
    assert answers[200] > count // 20 and answers[400] > count // 50 and answers[422] > count // 50, answers
    (memory, files, threads), (memory_after, files_after, threads_after) = held
    assert memory_after < 1.1 * memory and files_after <= files + 8 and threads_after <= threads + 2
    assert "Traceback" not in running.err.read_text()
    lines = running.out.read_text().splitlines()
    assert len(lines) > count // 40 * 40 and all(json.loads(line)["status"] for line in lines)
    assert httpx.get(f"{running.url}/health").status_code == 200


@pytest.mark.parametrize("examples", [25, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_schemathesis(running: Any, tmp_path: Path, examples: int) -> None:
    """All its checks: server errors, documented statuses, content types and bodies, refusal of what is not allowed.

    But one: that all which fits the schema is accepted. A schema cannot say that two lists are equally long.
    """
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    command = [sys.executable, "-c", program, "run", f"{running.url}/openapi.json"]
    command += ["--max-examples", str(examples), "--seed", "1", "--request-timeout", "30", "--no-color"]
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"CI": "1"})
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in running.err.read_text()
