"""The server on this machine: requests a second, behaviour under overload, and whether batching works."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.kit import Run
from mixlm_rerank.eval.bench.load import Body, Point, httpx, open_loop, saturation
from mixlm_rerank.eval.bench.machine import resident
from mixlm_rerank.eval.bench.show import table
from mixlm_rerank.eval.bench.synthetic import Words, random_docids, random_index
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.model import MixLM

__all__ = ["serve"]

BODIES = 500
FEW = 10  # documents in a small request, and in requests of the clients
CLIENTS = 16  # concurrent clients, each with one request at a time
QUERY = 16  # tokens
FEWEST = 20  # requests at the first rate
SHARES = (0.5, 0.8, 2.0)  # of saturation
SENDERS = max(1, (os.cpu_count() or 1) // 4)  # processes that send
READY_SECONDS = 300.0  # on a GPU it compiles first


def serve(
    model: MixLM,
    folder: Path,
    *,
    documents: int,
    candidates: int,
    seconds: float,
    soak: float,
    deadline: float,
    device: str,
    quiet: bool,
) -> str:
    """Measure the cells that ``folder`` lacks; write and return the page. ``seconds``: time per rate.

    The model must have been loaded by a name that another process can load.
    """
    settings = {"documents": documents, "candidates": candidates, "seconds": seconds, "soak": soak}
    run = Run(folder, model, quiet, **settings, deadline=deadline, device=device, senders=SENDERS)
    sizes = list(dict.fromkeys((candidates, FEW)))
    names = [f"{cell} of {size}" for size in sizes for cell in ("saturation", "loads")] + ["clients", "soak"]
    if any(name not in run.kept for name in names):
        index, words = folder / "index", Words(model.ranker.tokenizer)
        random_index(index, new_manifest(model, "int8", "random tokens"), documents)
        with _server(model, index, folder / "server.log", deadline, device) as (process, url):

            def loads(ask: partial[Point], rate: float) -> dict[str, Point]:
                return {str(share): ask(share * rate, seconds=3 * seconds) for share in SHARES}

            def soaked(ask: partial[Point], rate: float) -> dict[str, Any]:
                """The outcome at 80% of saturation, with the server's memory before and after."""
                before = resident(process.pid)
                return {**asdict(ask(0.8 * rate, seconds=soak)), "before": before, "after": resident(process.pid)}

            for size in sizes:
                bodies: list[Body] = [
                    {"query": words.text(QUERY), "document_ids": random_docids(size, documents, words.draw)}
                    for _ in range(BODIES)
                ]
                ask = partial(open_loop, url, bodies, deadline=deadline, senders=SENDERS)
                run.say(f"requests of {size} documents: rates grow until they are not served, {seconds:.0f} s each")
                found = run.cell(f"saturation of {size}", saturation, partial(ask, seconds=seconds), FEWEST / seconds)
                run.cell(f"loads of {size}", loads, ask, found["rate"])
                if size == candidates:
                    run.say(f"{numbers.duration(soak)} at 80% of saturation")
                    run.cell("soak", soaked, ask, found["rate"])
            run.cell("clients", lambda: {str(n): _closed(url, bodies, n, seconds) for n in (1, CLIENTS)})
    kept, tables = run.kept, []
    for size in sizes:
        met = {f"{share} of saturation": point for share, point in kept[f"loads of {size}"].items()}
        if size == candidates:
            met[f"soak, {numbers.duration(soak)}"] = kept["soak"]
        rate = kept[f"saturation of {size}"]["rate"]
        rows = [
            {"name": name, **point, "p99_over_p50": point["milliseconds"][2] / point["milliseconds"][0]}
            for name, point in met.items()
        ]
        tables += [f"Requests of {size} document_ids; saturation: {rate:.1f} a second.", table(rows)]
    one, many = (kept["clients"][str(count)] for count in (1, CLIENTS))
    about = (
        f"Queries of {QUERY} tokens, all embedding tokens of the model, an index of {numbers.count(documents)} "
        f"documents, deadline {deadline:g} s; client and server share the machine. Saturation: the highest rate of "
        "which 99% are answered in time. Milliseconds: median, 90th and 99th percentile."
    )
    last = (
        f"Requests of {FEW} documents: one client {one:.1f} a second, {CLIENTS} clients {many:.1f}: "
        f"{many / one:.2f} times as many. Memory after the soak: "
        f"{kept['soak']['after'] / max(1, kept['soak']['before']) - 1:+.1%}."
    )
    return run.page(f"The server with {model.name}", model.name, kept, [about, *tables, last])


def _closed(url: str, bodies: Sequence[Body], clients: int, seconds: float) -> float:
    """Answers a second with ``clients`` clients, each of which sends a request when its last one is answered."""
    end = time.perf_counter() + seconds

    def ask(number: int) -> int:
        done = 0
        with httpx.Client(timeout=60) as client:
            while time.perf_counter() < end:
                answer = client.post(f"{url}/v2/rerank", json=bodies[(number + done * clients) % len(bodies)])
                done += answer.status_code == 200 and time.perf_counter() <= end
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(ask, range(clients))) / seconds


@contextmanager
def _server(
    model: MixLM, index: Path, log: Path, deadline: float, device: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server in a separate process. Raises MixLMError if it does not become ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from mixlm_rerank.cli import main; main()", "serve", "--port", str(port)]
    command += ["--model", f"model={model.name}", "--index", f"index={index}", "--deadline", str(deadline)]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--device", device], stdout=subprocess.DEVNULL, stderr=file)
    try:
        url, until, ready = f"http://127.0.0.1:{port}", time.monotonic() + READY_SECONDS, False
        while not ready:
            if time.monotonic() > until or process.poll() is not None:
                raise MixLMError(f"the server did not come up, see {log}: {' '.join(command[3:])}")
            time.sleep(0.1)
            with suppress(httpx.TransportError):
                ready = httpx.get(f"{url}/ready").status_code == 200
        yield process, url
    finally:
        process.terminate()
        process.wait()
