"""The server on this machine: how many requests a second, how it behaves beyond that, whether batching is at work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from mixlm_rerank import numbers
from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.load import Point, open_loop, saturation
from mixlm_rerank.eval.bench.output import markdown_rows, write_page, write_results
from mixlm_rerank.eval.bench.stores import manifest_for, random_docids, random_index
from mixlm_rerank.eval.bench.texts import Words
from mixlm_rerank.model import MixLM

__all__ = ["ServeOptions", "measure_serve", "write_serve"]

BODIES = 500
FEWEST = 20  # requests at the first rate
SHARES = (0.5, 0.8, 2.0)  # of saturation
READY_SECONDS = 300.0  # on a GPU it compiles first
LOG = "server.log"


@dataclass(frozen=True)
class ServeOptions:
    """Attributes:
    documents: in the index.
    candidates: document_ids of a request, in the load test and for the clients that batch.
    query: tokens of it.
    seconds: of a rate; ``soak``: of the long run at 80% of saturation.
    deadline: of a request, in seconds.
    device: of the server.
    clients: that ask one after the other, together.
    senders: processes that send requests of the rates; by default one for every four cores.
    """

    documents: int = 100_000
    candidates: int = 100
    few: int = 10
    query: int = 16
    seconds: float = 20.0
    soak: float = 600.0
    deadline: float = 2.0
    clients: int = 16
    device: str = "cpu"
    senders: int = max(1, (os.cpu_count() or 1) // 4)


def measure_serve(
    model: MixLM,
    folder: Path,
    options: ServeOptions = ServeOptions(),
    *,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Cells saturation and loads (of both sizes of requests), clients and soak; only those that ``folder`` lacks.

    The model must have been loaded by a name that another process can load.
    """
    kept = Cells(folder, conditions(model, **asdict(options)))
    try:
        sizes = (options.candidates, options.few)
        names = [f"{cell} of {size}" for size in sizes for cell in ("saturation", "loads")] + ["clients", "soak"]
        todo = [name for name in names if name not in kept.kept]
        if todo:
            index = folder / "index"
            random_index(index, manifest_for(model), options.documents)
            with _server(model, index, folder / LOG, options) as (process, url):
                bodies = {size: _bodies(model, options, size) for size in sizes}
                ask = partial(open_loop, url, deadline=options.deadline, senders=options.senders)
                for size in sizes:
                    _load(kept, partial(ask, bodies[size]), size, options.seconds, say)
                if "clients" in todo:
                    few = bodies[options.few]
                    rates = {str(count): _closed(url, few, count, options.seconds) for count in (1, options.clients)}
                    kept.keep("clients", rates)
                if "soak" in todo:
                    say(f"{folder}: {numbers.duration(options.soak)} at 80% of saturation")
                    before, rate = _resident(process.pid), 0.8 * kept.kept[f"saturation of {sizes[0]}"]["rate"]
                    point = ask(bodies[sizes[0]], rate=rate, seconds=options.soak)
                    kept.keep("soak", {**asdict(point), "before": before, "after": _resident(process.pid)})
        return kept.kept
    finally:
        kept.close()


def _load(kept: Cells, ask: Callable[..., Point], size: int, seconds: float, say: Callable[[str], object]) -> None:
    """The cells of one size of requests, where they are lacking."""
    name, loads = f"saturation of {size}", f"loads of {size}"
    if name not in kept.kept:
        say(f"requests of {size} documents: rates that grow until they are not served, {seconds:.0f} s each")
        best, points = saturation(lambda rate: ask(rate=rate, seconds=seconds), start=FEWEST / seconds)
        kept.keep(name, {"rate": best, "points": [asdict(point) for point in points]})
    if loads not in kept.kept:
        best = kept.kept[name]["rate"]
        found = {str(share): ask(rate=share * best, seconds=3 * seconds) for share in SHARES}
        kept.keep(loads, {share: asdict(point) for share, point in found.items()})


def write_serve(kept: dict[str, Any], folder: Path, options: ServeOptions, model: str) -> str:
    """Tables, and results.json; returns the page."""
    write_results(folder, model, kept)
    columns = ["load", "offered/s", "answered/s", "refused", "late", "failed", "p50, ms", "p90, ms", "p99, ms"]
    columns += ["p99 / p50"]
    tables = []
    for size in (options.candidates, options.few):
        rows = [_row(f"{share} of saturation", point) for share, point in kept[f"loads of {size}"].items()]
        if size == options.candidates:
            rows += [_row(f"soak, {numbers.duration(options.soak)}", kept["soak"])]
        rate = kept[f"saturation of {size}"]["rate"]
        tables += [
            f"Requests of {size} document_ids; saturation: {rate:.1f} a second.",
            markdown_rows(columns, rows),
        ]
    one, many = kept["clients"]["1"], kept["clients"][str(options.clients)]
    memory = kept["soak"]["after"] / max(1, kept["soak"]["before"]) - 1
    said = [
        f"Queries of {options.query} tokens, all embedding tokens of the model, an index of "
        f"{numbers.count(options.documents)} documents, deadline {options.deadline:g} s; client and server share the "
        "machine. Saturation: the highest rate of which 99% are answered in time.",
        *tables,
        f"Requests of {options.few} documents: one client {one:.1f} a second, {options.clients} clients {many:.1f}: "
        f"{many / one:.2f} times as many. Memory after the soak: {memory:+.1%}.",
    ]
    return write_page(folder, f"The server with {model}", said)


def _row(name: str, point: dict[str, Any]) -> list[str | None]:
    rates = [f"{point['offered']:.1f}", f"{point['answered']:.1f}"]
    shares = [numbers.percent(point[part]) for part in ("refused", "late", "failed")]
    latencies = [f"{value:.0f}" for value in point["milliseconds"]]
    return [name, *rates, *shares, *latencies, f"{point['milliseconds'][2] / point['milliseconds'][0]:.1f}"]


def _bodies(model: MixLM, options: ServeOptions, candidates: int) -> list[dict[str, object]]:
    words, draw = Words(model.ranker.tokenizer), Random(0)
    return [
        {
            "query": words.text(options.query, draw),
            "document_ids": random_docids(candidates, options.documents, draw),
        }
        for _ in range(BODIES)
    ]


def _closed(url: str, bodies: list[dict[str, object]], clients: int, seconds: float) -> float:
    """Answers a second of so many clients, each of which asks again when it is answered."""
    import httpx

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
    model: MixLM, index: Path, log: Path, options: ServeOptions
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in a process of its own. Raises MixLMError if it does not come up."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from mixlm_rerank.cli import main; main()", "serve", "--port", str(port)]
    command += ["--model", f"model={model.name}", "--index", f"index={index}", "--deadline", str(options.deadline)]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--device", options.device], stdout=subprocess.DEVNULL, stderr=file)
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


def _resident(pid: int) -> int:
    """Bytes of memory of a process (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
