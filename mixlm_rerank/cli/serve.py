"""``mixlm-rerank serve``: the HTTP server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from ..errors import InputError, masked, optional_import
from .options import Device, Dtype, Offline, open_judge, say

__all__ = ["serve"]


def serve(
    index: Annotated[
        list[str] | None, Option(help="NAME=FOLDER or NAME=redis://HOST:PORT/DB#NAME; may be repeated.")
    ] = None,
    lucene: Annotated[
        list[str] | None,
        Option(help="NAME=FOLDER: Lucene index of token index NAME's documents, for the page at / and for verify_top."),
    ] = None,
    model: Annotated[
        list[str] | None, Option(help="[NAME=]MODEL: 'default', a folder or a hub id; may be repeated.")
    ] = None,
    verify_with: Annotated[
        str | None,
        Option(help="Cross-encoder (name or folder) for requests with verify_top; by default the model reads them."),
    ] = None,
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = 8000,
    deadline: Annotated[float, Option(min=0.01, help="Seconds after which a request is answered with 504.")] = 10.0,
    waiting: Annotated[
        int, Option(min=1, help="Documents that may wait in the queue; more are refused (429).")
    ] = 20_000,
    max_body: Annotated[int, Option(min=1, help="Largest request in megabytes; larger ones are refused (413).")] = 32,
    max_tokens: Annotated[
        int, Option(min=1, help="Most tokens to encode in a request; more are refused (413).")
    ] = 500_000,
    workers: Annotated[
        int, Option(min=1, help="Processes that share the address; each has its own models and queue.")
    ] = 1,
    api_key_env: Annotated[str | None, Option(help="Environment variable that holds the API key.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
) -> None:
    """Serve Cohere's rerank API: POST /v2/rerank. Ctrl-C answers accepted requests, then exits; twice: exits at once.

    SIGHUP reloads models and indexes while the old ones keep serving.
    """
    with optional_import("serve needs FastAPI", "serve"):
        from ..serving.app import Limits, create_app
        from ..serving.catalogue import open_catalogue
        from ..serving.process import run
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise InputError(f"the environment variable {api_key_env} is empty: put the API key there")
    models = _by_name(model or ["default"], "--model")
    indexes = _by_name(index or [], "--index", "NAME=FOLDER or NAME=redis://...")
    stages = _by_name(lucene or [], "--lucene")
    for name in stages:
        if name not in indexes:
            raise InputError(f"--lucene {name}: there is no --index {name} of the same documents")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers > cores:
        say(f"warning: {workers} workers share {cores} cores: give at most --workers {cores}")
    judge = partial(open_judge, verify_with, device, dtype, offline)
    opened = partial(open_catalogue, models, indexes, stages, judge, device, dtype, offline)
    limits = Limits(max_body << 20, waiting, deadline, max_tokens)
    say(
        f"loading models {', '.join(models)}; indexes {', '.join(indexes) or 'none'}; "
        f"then http://{host}:{port} has a page at /, documentation at /docs"
    )
    run(partial(create_app, opened, limits, key), host, port, deadline, _logging(), workers)


def _by_name(given: Sequence[str], option: str, expected: str = "NAME=FOLDER") -> dict[str, str]:
    """Options NAME=VALUE as name -> value. A model without a name gets the name of its folder."""
    found: dict[str, str] = {}
    for each in given:
        name, _, value = each.partition("=")
        if not (name and value) or "://" in name:
            if option != "--model":
                raise InputError(f"{option} {masked(each)!r}: expected {expected}")
            name, value = Path(each).name or each, each
        if name in found:
            both = f"as {masked(found[name])} and as {masked(value)}"
            raise InputError(f"{option} {masked(name)} is given twice, {both}: give them different names")
        found[name] = value
    return found


def _logging() -> dict[str, Any]:
    """Logging settings: the access log is JSON on stdout, one line per request; all else goes to stderr."""
    formats = {"stderr": "%(levelname)s %(name)s: %(message)s", "stdout": "%(message)s"}
    kind = "logging.StreamHandler"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {to: {"format": text} for to, text in formats.items()},
        "handlers": {to: {"class": kind, "formatter": to, "stream": f"ext://sys.{to}"} for to in formats},
        "loggers": {
            "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
            "mixlm_rerank": {"handlers": ["stderr"], "level": "INFO"},
            "mixlm_rerank.access": {"handlers": ["stdout"], "level": "INFO", "propagate": False},
        },
    }
