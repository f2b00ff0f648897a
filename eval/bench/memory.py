"""How much memory a rerank takes beyond the loaded model: asked of a process of its own.

``python -m mixlm_rerank.eval.bench.memory MODEL INDEX CANDIDATES THREADS QUERY`` prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from random import Random

import torch

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.private_memory import private_growth
from mixlm_rerank.eval.bench.stores import random_docids
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.systems.machine import peak_memory, reset_peak_memory

__all__ = ["rerank_memory"]

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


def rerank_memory(model: MixLM, index: Path, candidates: int, query: str) -> dict[str, int | None]:
    """Bytes of resident memory of a fresh process that reranks once, at the largest budget, on the CPU.

    Returns:
        ``loaded``: with the model loaded. ``peak``: most while reranking. ``growth``: the difference. ``private``: what
        of that no file is behind, None if the system is silent; the rest are pages of the index, which the system maps
        by the megabyte and takes back when memory is short.

    Raises MixLMError if the process fails: a model that was not loaded from a folder or by name, say.
    """
    arguments = [model.name, str(index), str(candidates), str(torch.get_num_threads()), query]
    done = subprocess.run([sys.executable, "-m", __name__, *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MixLMError(f"the process that measures memory failed: {last}")
    found: dict[str, int | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(model: str, index: str, candidates: str, threads: str, query: str) -> dict[str, int | None]:
    torch.set_num_threads(int(threads))
    loaded_model = MixLM.from_pretrained(model, device="cpu", dtype="float32", local_files_only=True)
    most = _most()
    loaded = _resident() or most
    reset_peak_memory()  # loading takes more than the loaded model, which would hide what comes after
    docids = random_docids(int(candidates), len(TokenIndex(index)), Random(0))
    hits = [(docid, 0.0) for docid in docids]
    private = private_growth(lambda: Reranker(loaded_model, TokenIndex(index)).rerank(query, hits))
    peak = _most()
    return {"loaded": loaded, "peak": peak, "growth": peak - loaded, "private": private}


def _most() -> int:
    """Most resident memory, since :func:`reset_peak_memory` where the system can (Linux).

    There ``ru_maxrss`` will not do: it cannot be reset, and a child inherits its parent's.
    """
    return peak_memory() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def _resident() -> int | None:
    """Resident memory now; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return None


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
