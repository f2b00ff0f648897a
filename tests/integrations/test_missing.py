"""Without an adapter's library the message names the command that installs it."""

from __future__ import annotations

import json
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


PROGRAM = """
import importlib, json, sys
found = {}
for code, library in json.loads(sys.argv[1]):
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == library}
    sys.modules[library] = None
    try:
        exec(code)
    except Exception as error:
        found[code] = [type(error).__name__, str(error)]
    del sys.modules[library]
    sys.modules.update(kept)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, list[str]]:
    """What each line of code says without its library: in one process, which lacks one after the other."""
    lines = {f"import {module}": library for module, (library, _) in EXTRAS.items()}
    lines |= {code: library for code, (library, _) in CALLS.items()}
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(lines.items()))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("code", "extra"),
    [(f"import {module}", extra) for module, (_, extra) in EXTRAS.items()]
    + [(code, extra) for code, (_, extra) in CALLS.items()],
)
def test_the_message_names_the_command(said: dict[str, list[str]], code: str, extra: str) -> None:
    kind, message = said[code]
    assert kind == "MissingDependency"
    assert f"mixlm-rerank[{extra}]" in message and "pip install" in message


def test_the_core_imports_without_any_of_them() -> None:
    libraries = [library for library, _ in [*EXTRAS.values(), *CALLS.values()]] + [
        "pyserini",
        "beir",
        "pandas",
        "fastapi",
    ]
    program = f"import sys; sys.modules.update(dict.fromkeys({libraries!r})); import mixlm_rerank, mixlm_rerank.index"
    subprocess.run([sys.executable, "-c", program], check=True)
