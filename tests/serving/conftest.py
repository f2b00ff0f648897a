"""A server in a thread of this process, and one in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.serving.app import Limits, create_app
from mixlm_rerank.serving.catalogue import Catalogue, FirstStage


@pytest.fixture(scope="session")
def model(tiny: Callable[..., MixLM], tmp_path_factory: pytest.TempPathFactory) -> MixLM:
    folder = tmp_path_factory.mktemp("served") / "model"
    tiny("bert", tokens=4).save_pretrained(folder)
    return MixLM.from_pretrained(str(folder), device="cpu")


@pytest.fixture(scope="session")
def index(model: MixLM, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> TokenIndex:
    return TokenIndex.build(documents, model, tmp_path_factory.mktemp("served") / "tokens", progress=False)


def _serving() -> Iterator[Callable[..., str]]:
    """``served(catalogue, limits)``: the address of a running server."""
    servers = []

    def serve(catalogue: Catalogue, limits: Limits | None = None, **options: Any) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        app = create_app(lambda: catalogue, limits or Limits(), **options)
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        while thread.is_alive():
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    return f"http://127.0.0.1:{port}"
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise RuntimeError("the server did not start")

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(timeout=30)


served = pytest.fixture(name="served")(_serving)
served_for_all = pytest.fixture(scope="session", name="served_for_all")(_serving)


@pytest.fixture(scope="session")
def url(served_for_all: Callable[..., str], model: MixLM, index: TokenIndex) -> str:
    """A server with the model ``tiny`` and the index ``docs``, which many tests share."""
    return served_for_all(Catalogue({"tiny": model}, {"docs": index}))


@pytest.fixture(scope="session")
def post(url: str) -> Callable[..., httpx.Response]:
    """``post(query=..., documents=...)`` to /v2/rerank."""
    return lambda **body: httpx.post(f"{url}/v2/rerank", json=body, timeout=30)


@pytest.fixture(scope="session")
def served_folder(model: MixLM, index: TokenIndex) -> tuple[Path, Path]:
    return Path(model.name), index.path


@pytest.fixture(scope="session")
def lucene(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mixlm_rerank.integrations.lucene import build_lucene_index

    folder: Path = tmp_path_factory.mktemp("served") / "lucene"
    build_lucene_index([*documents, Document("long", "zebra " * 200)], folder)
    return folder


@pytest.fixture(scope="session")
def first_stage(lucene: Path) -> FirstStage:
    return FirstStage(lucene)


@pytest.fixture(scope="session")
def searched(served_for_all: Callable[..., str], model: MixLM, index: TokenIndex, first_stage: FirstStage) -> str:
    return served_for_all(Catalogue({"tiny": model}, {"docs": index}, {"docs": first_stage}))


class Held(Reranker):
    """Waits for ``go`` before it ranks."""

    go, begun = threading.Event(), threading.Event()

    def rerank_batch(self, *arguments: Any, **options: Any) -> Any:
        Held.begun.set()
        Held.go.wait()
        return super().rerank_batch(*arguments, **options)


@pytest.fixture
def held(served: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Held]]:
    """Servers that are started from now on wait for ``held.go`` before they rank."""
    monkeypatch.setattr("mixlm_rerank.serving.catalogue.Reranker", Held)
    Held.go.clear()
    Held.begun.clear()
    yield Held
    Held.go.set()  # before the servers end


@pytest.fixture(scope="session")
def metrics() -> Callable[[str, str], str]:
    """``metrics(url, line)``: the page of metrics, as soon as it has this line."""

    def ask(url: str, line: str) -> str:
        while line not in (page := httpx.get(f"{url}/metrics").text):
            time.sleep(0.01)
        return page

    return ask


@dataclass(frozen=True)
class Served:
    """A server in a process of its own. ``out`` holds its access log."""

    process: subprocess.Popen[bytes]
    url: str
    out: Path
    err: Path


def _starting(
    served_folder: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Served]]:
    """``start(index, *options)``: ``mixlm-rerank serve`` with the model ``tiny`` and the index ``docs``.

    ``first``: Python that the process runs before. ``by``: a command that runs it.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def begin(index: Path = served_folder[1], *options: str, first: str = "", by: Sequence[str | Path] = ()) -> Served:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = f"{first}\nfrom mixlm_rerank.cli import main; main()"
        command = [*by, sys.executable, "-c", program, "serve", "--port", str(port)]
        command += ["--model", f"tiny={served_folder[0]}", "--index", f"docs={index}", "--device", "cpu", *options]
        folder = tmp_path_factory.mktemp("server")
        out, err = folder / "out", folder / "err"
        process = subprocess.Popen(command, stdout=out.open("wb"), stderr=err.open("wb"))
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        while process.poll() is None:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    return Served(process, url, out, err)
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise RuntimeError(err.read_text())

    yield begin
    for process in processes:
        process.kill()
        process.wait()


start = pytest.fixture(name="start")(_starting)
start_for_all = pytest.fixture(scope="module", name="start_for_all")(_starting)
