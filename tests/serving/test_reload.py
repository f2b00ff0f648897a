"""SIGHUP loads models and indexes anew; what is served stays until they are there, or if they cannot be loaded."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.catalogue import open_catalogue
from mixlm_rerank.serving.guard import Limits
from mixlm_rerank.serving.service import Service

QUERY, DOCIDS = "a dog barks", ["d1", "d2", "d3"]


def written(model: MixLM, documents: list[Document], folder: Path) -> list[float]:
    """A model and its index in ``folder``, whatever was there; and the scores that they give."""
    draft = folder.with_name("draft")
    model.save_pretrained(draft / "model")
    loaded = MixLM.from_pretrained(str(draft / "model"), device="cpu")
    index = TokenIndex.build(documents, loaded, draft / "tokens", progress=False)
    scores = Reranker(loaded, index).rerank(QUERY, DOCIDS)
    if folder.exists():
        folder.rename(folder.with_name("old"))
    draft.rename(folder)
    return [doc.score for doc in scores]


@pytest.mark.processes
def test_new_models_and_indexes_without_a_gap(
    start: Callable[..., Any],
    served_folder: tuple[Path, Path],
    tiny: Callable[..., MixLM],
    documents: list[Document],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "now"
    before = written(tiny("bert", tokens=4), documents, folder)
    served = start(served_folder[1], "--model", f"own={folder / 'model'}", "--index", f"own={folder / 'tokens'}")
    body = {"query": QUERY, "document_ids": DOCIDS, "index": "own", "raw_scores": True}
    found: list[list[float]] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            answer = httpx.post(f"{served.url}/v2/rerank", json=body, timeout=60)
            found.append([each["relevance_score"] for each in answer.json()["results"]])  # an error has none

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        while len(found) < 3:
            time.sleep(0.01)
        after = written(tiny("modernbert", tokens=2), documents, folder)
        served.process.send_signal(signal.SIGHUP)
        while asking.is_alive() and found[-1] != pytest.approx(after, abs=1e-4):
            time.sleep(0.01)
    finally:
        enough.set()
        asking.join()
    changed = next(place for place, scores in enumerate(found) if scores != pytest.approx(before, abs=1e-4))
    assert all(scores == pytest.approx(after, abs=1e-4) for scores in found[changed:]) and changed >= 3

    (folder / "model" / "config.json").rename(folder / "kept.json")
    served.process.send_signal(signal.SIGHUP)
    while not (report := httpx.get(f"{served.url}/ready")).json()["problems"]:
        time.sleep(0.01)
    (problem,) = report.json()["problems"]
    assert report.status_code == 200 and report.json()["status"] == "ready" and problem["part"] == "reload"
    assert str(folder / "model") in problem["message"] and "loaded before is served" in problem["message"]
    assert "not reloaded: " in served.err.read_text()
    answer = httpx.post(f"{served.url}/v2/rerank", json=body).json()["results"]
    assert [each["relevance_score"] for each in answer] == pytest.approx(after, abs=1e-4)

    (folder / "kept.json").rename(folder / "model" / "config.json")
    served.process.send_signal(signal.SIGHUP)
    while httpx.get(f"{served.url}/ready").json()["problems"]:
        time.sleep(0.01)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait() in (0, -signal.SIGTERM)


def test_what_was_served_before_is_let_go(served_folder: tuple[Path, Path], lucene: Path) -> None:
    """Or each reload would take more memory."""
    model, index = map(str, served_folder)
    sources = partial(open_catalogue, {"tiny": model}, {"docs": index}, {"docs": str(lucene)}, device="cpu")

    async def reloaded() -> list[object]:
        service = Service(sources, Limits())
        await service.start()
        catalogue = service.catalogue
        opened = [catalogue, catalogue.models["tiny"], catalogue.indexes["docs"], catalogue.first_stages["docs"]]
        old = [weakref.ref(each) for each in opened]
        catalogue.reranker("tiny", "docs", "last", None)
        assert [hit.docid for hit in await catalogue.first_stages["docs"].search("bread", 1)] == ["d4"]
        del catalogue, opened
        await service.reload()
        assert not service.not_reloaded
        assert [hit.docid for hit in await service.catalogue.first_stages["docs"].search("bread", 1)] == ["d4"]
        await service.close()
        return [each() for each in old]

    try:
        assert asyncio.run(reloaded()) == [None] * 4
    finally:
        gc.freeze()  # as before


def test_an_index_of_another_model_is_not_loaded(
    served_folder: tuple[Path, Path], tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path
) -> None:
    place = tmp_path / "tokens"
    shutil.copytree(served_folder[1], place)
    sources = partial(open_catalogue, {"tiny": str(served_folder[0])}, {"docs": str(place)}, {}, device="cpu")

    async def failed() -> str:
        service = Service(sources, Limits())
        await service.start()
        catalogue = service.catalogue
        shutil.rmtree(place)
        TokenIndex.build(documents, tiny("modernbert", tokens=4), place, progress=False)
        await service.reload()
        await service.close()
        assert service.catalogue is catalogue
        return service.not_reloaded

    assert "was built by item encoder" in asyncio.run(failed())
