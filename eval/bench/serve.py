"""The server on this machine: how many requests a second, how it behaves beyond that, whether batching is at work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.kit import Run, column, table
from mixlm_rerank.eval.bench.load import Body, Point, httpx, open_loop, saturation
from mixlm_rerank.eval.bench.memory import resident
from mixlm_rerank.eval.bench.synthetic import Words, random_docids, random_index
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.model import MixLM

__all__ = ["serve"]

BODIES = 500
FEW = 10  # documents of a small request, and of the clients that batch
CLIENTS = 16  # that ask one after the other, together
QUERY = 16  # tokens
FEWEST = 20  # requests at the first rate
SHARES = (0.5, 0.8, 2.0)  # of saturation
SENDERS = max(1, (os.cpu_count() or 1) // 4)  # processes that send
READY_SECONDS = 300.0  # on a GPU it compiles first
COLUMNS = {
    "load": column(str, "load"),
    "offered/s": column("{:.1f}".format, "offered"),
    "answered/s": column("{:.1f}".format, "answered"),
    "refused": column(numbers.percent, "refused"),
    "late": column(numbers.percent, "late"),
    "failed": column(numbers.percent, "failed"),
    "p50, ms": column("{:.0f}".format, "milliseconds", 0),
    "p90, ms": column("{:.0f}".format, "milliseconds", 1),
    "p99, ms": column("{:.0f}".format, "milliseconds", 2),
    "p99 / p50": lambda row: f"{row['milliseconds'][2] / row['milliseconds'][0]:.1f}",
}


def serve(
    model: MixLM,
    folder: Path,
    *,
    documents: int = 100_000,
    candidates: int = 100,
    seconds: float = 20.0,
    soak: float = 600.0,
    deadline: float = 2.0,
    device: str = "cpu",
    quiet: bool = True,
) -> str:
    """Measure the cells that ``folder`` lacks; write and return the page.

    Args:
        documents, candidates: in the index, and of a large request; small ones are of 10.
        seconds, soak: of a rate, and of the long run at 80% of saturation.
        deadline: of a request, in seconds.
        device: of the server.

    The model must have been loaded by a name that another process can load.
    """
    settings = {"documents": documents, "candidates": candidates, "seconds": seconds, "soak": soak}
    with Run(folder, model, quiet, **settings, deadline=deadline, device=device, senders=SENDERS) as run:
        sizes = dict.fromkeys((candidates, FEW))
        names = [f"{cell} of {size}" for size in sizes for cell in ("saturation", "loads")] + ["clients", "soak"]
        if any(name not in run.kept for name in names):
            index, words, draw = folder / "index", Words(model.ranker.tokenizer), Random(0)
            random_index(index, new_manifest(model, "int8", "random tokens"), documents)
            with _server(model, index, folder / "server.log", deadline, device) as (process, url):
                for size in sizes:
                    bodies: list[Body] = [
                        {"query": words.text(QUERY, draw), "document_ids": random_docids(size, documents, draw)}
                        for _ in range(BODIES)
                    ]
                    ask = partial(open_loop, url, bodies, deadline=deadline, senders=SENDERS)
                    run.say(f"requests of {size} documents: rates grow until they are not served, {seconds:.0f} s each")
                    found = run.cell(f"saturation of {size}", partial(_saturation, ask, seconds))
                    run.cell(f"loads of {size}", partial(_loads, ask, found["rate"], 3 * seconds))
                    if size == candidates:
                        run.say(f"{numbers.duration(soak)} at 80% of saturation")
                        rate = 0.8 * found["rate"]
                        run.cell("soak", partial(_soak, process.pid, partial(ask, rate=rate, seconds=soak)))
                run.cell("clients", lambda: {str(n): _closed(url, bodies, n, seconds) for n in (1, CLIENTS)})
        return _page(run, model.name, settings, deadline)


def _saturation(ask: partial[Point], seconds: float) -> dict[str, Any]:
    best, points = saturation(lambda rate: ask(rate=rate, seconds=seconds), start=FEWEST / seconds)
    return {"rate": best, "points": [asdict(point) for point in points]}


def _loads(ask: partial[Point], rate: float, seconds: float) -> dict[str, Any]:
    return {str(share): asdict(ask(rate=share * rate, seconds=seconds)) for share in SHARES}


def _soak(pid: int, ask: partial[Point]) -> dict[str, Any]:
    """With the server's memory before and after."""
    before = resident(pid)
    return {**asdict(ask()), "before": before, "after": resident(pid)}


def _closed(url: str, bodies: Sequence[Body], clients: int, seconds: float) -> float:
    """Answers a second of so many clients, each of which asks again when it is answered."""
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
    """A server in a process of its own. Raises MixLMError if it does not come up."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from mixlm_rerank.cli import main; main()", "serve", "--port", str(port)]
    command += ["--model", f"model={model.name}", "--index", f"index={index}", "--deadline", str(deadline)]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--device", device], stdout=subprocess.DEVNULL, stderr=file)
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + READY_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            raise MixLMError(f"the server did not come up, see {log}: {' '.join(command[3:])}")
        yield process, url
    finally:
        process.terminate()
        process.wait()


def _page(run: Run, model: str, settings: Mapping[str, Any], deadline: float) -> str:
    kept, tables = run.kept, []
    for size in dict.fromkeys((settings["candidates"], FEW)):
        rows = [{"load": f"{share} of saturation", **point} for share, point in kept[f"loads of {size}"].items()]
        if size == settings["candidates"]:
            rows.append({"load": f"soak, {numbers.duration(settings['soak'])}", **kept["soak"]})
        rate = kept[f"saturation of {size}"]["rate"]
        tables += [f"Requests of {size} document_ids; saturation: {rate:.1f} a second.", table(COLUMNS, rows)]
    one, many = (kept["clients"][str(count)] for count in (1, CLIENTS))
    about = (
        f"Queries of {QUERY} tokens, all embedding tokens of the model, an index of "
        f"{numbers.count(settings['documents'])} documents, deadline {deadline:g} s; client and server share the "
        "machine. Saturation: the highest rate of which 99% are answered in time."
    )
    last = (
        f"Requests of {FEW} documents: one client {one:.1f} a second, {CLIENTS} clients {many:.1f}: "
        f"{many / one:.2f} times as many. Memory after the soak: "
        f"{kept['soak']['after'] / max(1, kept['soak']['before']) - 1:+.1%}."
    )
    return run.page(f"The server with {model}", model, kept, [about, *tables, last])
