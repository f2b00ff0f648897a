"""Without an adapter's library the message names the command that installs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank.errors import install_command

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
    assert message.endswith(f": {install_command(extra)}")


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, 'pip install "mixlm-rerank[serve]"'),
        ({"url": "file:///a%20b/c", "dir_info": {"editable": True}}, 'pip install -e "/a b/c[serve]"'),
        ({"url": "file:///a/c", "dir_info": {}}, 'pip install "mixlm-rerank[serve] @ file:///a/c"'),
        (
            {"url": "https://host/path.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}},
            'pip install "mixlm-rerank[serve] @ git+https://host/path.git@0123abc"',
        ),
    ],
    ids=["package index", "editable checkout", "checkout", "git"],
)
def test_the_command_installs_from_where_the_package_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None, command: str
) -> None:
    """What pip has noted beside the package."""
    folder = tmp_path / "mixlm_rerank-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mixlm-rerank\nVersion: 0.1.0\n")
    if origin is not None:
        (folder / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install_command("serve") == command


def test_the_core_imports_without_any_of_them() -> None:
    libraries = [library for library, _ in [*EXTRAS.values(), *CALLS.values()]] + [
        "pyserini",
        "beir",
        "pandas",
        "fastapi",
    ]
    program = f"import sys; sys.modules.update(dict.fromkeys({libraries!r})); import mixlm_rerank, mixlm_rerank.index"
    subprocess.run([sys.executable, "-c", program], check=True)
