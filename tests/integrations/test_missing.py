"""Without an adapter's library the message names the command that installs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = {
    "mixlm_rerank.integrations.sentence_transformers": ("sentence_transformers", "sentence-transformers"),
    "mixlm_rerank.integrations.langchain": ("langchain_core", "langchain"),
    "mixlm_rerank.integrations.llama_index": ("llama_index", "llama-index"),
    "mixlm_rerank.integrations.haystack": ("haystack", "haystack"),
    "mixlm_rerank.integrations.rerankers": ("rerankers", "rerankers"),
    "mixlm_rerank.integrations.pyterrier": ("pyterrier", "pyterrier"),
    "mixlm_rerank.integrations.mteb": ("mteb", "mteb"),
}
CALLS = {
    "from mixlm_rerank.index import RedisTokenStore; RedisTokenStore('redis://localhost#name')": ("redis", "redis"),
    "from mixlm_rerank.index.shards import Shards; Shards('shards')": ("pyarrow", "parquet"),
    "from mixlm_rerank.index.ray_build import _ray; _ray()": ("ray", "ray"),
}


@pytest.mark.parametrize(
    ("code", "library", "extra"),
    [(f"import {module}", *names) for module, names in EXTRAS.items()]
    + [(code, *names) for code, names in CALLS.items()],
)
def test_the_message_names_the_command(code: str, library: str, extra: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mixlm_rerank.errors.MissingDependency: ")
    assert f"mixlm-rerank[{extra}]" in last and "pip install" in last


def test_the_core_imports_without_any_of_them() -> None:
    libraries = [library for library, _ in [*EXTRAS.values(), *CALLS.values()]] + [
        "pyserini",
        "beir",
        "pandas",
        "fastapi",
    ]
    program = f"import sys; sys.modules.update(dict.fromkeys({libraries!r})); import mixlm_rerank, mixlm_rerank.index"
    subprocess.run([sys.executable, "-c", program], check=True)
