"""Probes name the part that is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch

from mixlm_rerank import MixLM, TokenIndex
from mixlm_rerank.errors import StoreUnavailable
from mixlm_rerank.serving.catalogue import Catalogue


def test_a_sound_server(url: str) -> None:
    for path, status in (("health", "ok"), ("ready", "ready")):
        answer = httpx.get(f"{url}/{path}")
        assert answer.status_code == 200
        assert answer.json() == {"status": status, "models": ["tiny"], "indexes": ["docs"], "problems": []}


def test_weights_that_have_changed(
    served: Callable[..., str], fresh: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixlm_rerank.serving.service.LOOK_SECONDS", 0.0)
    model = fresh("bert")
    url = served(Catalogue({"tiny": model}, {}))
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    with torch.no_grad():
        model.readout.score.bias.add_(1.0)
    for path in ("health", "ready"):
        answer = httpx.get(f"{url}/{path}")
        (problem,) = answer.json()["problems"]
        assert answer.status_code == 503 and answer.json()["status"] == "failing"
        assert problem["part"] == "model tiny" and "no longer gives its known answer" in problem["message"]
        assert "restart the server" in answer.json()["message"]
    with torch.no_grad():
        model.readout.score.bias.sub_(1.0)
    assert httpx.get(f"{url}/health").status_code == httpx.get(f"{url}/ready").status_code == 200


def test_an_index_that_cannot_be_read(served: Callable[..., str], model: MixLM, index: TokenIndex) -> None:
    """A restart would not help: only /ready fails."""

    class Gone:
        manifest = index.manifest
        gone = False

        def fetch(self, docids: Any, tokens: Any = None) -> Any:
            if self.gone:
                raise StoreUnavailable("redis://cache#docs does not answer: is Redis running there?")
            return index.fetch(docids, tokens)

    store = Gone()
    url = served(Catalogue({"tiny": model}, {"docs": index, "cache": store}))
    store.gone = True
    answer = httpx.get(f"{url}/ready")
    assert answer.status_code == 503 and answer.json()["problems"] == [
        {"part": "index cache", "message": "redis://cache#docs does not answer: is Redis running there?"}
    ]
    assert answer.json()["message"].startswith("index cache: redis://cache#docs does not answer")
    assert httpx.get(f"{url}/health").status_code == 200
