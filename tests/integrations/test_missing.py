"""Without an adapter's library the message names the command that installs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank.errors import MissingDependency, install_command

# code -> the library that it needs, the extra that brings it
NEEDS = {
    "import mixlm_rerank.integrations.sentence_transformers": ("sentence_transformers", "sentence-transformers"),
    "import mixlm_rerank.integrations.langchain": ("langchain_core", "langchain"),
    "import mixlm_rerank.integrations.llama_index": ("llama_index", "llama-index"),
    "import mixlm_rerank.integrations.haystack": ("haystack", "haystack"),
    "import mixlm_rerank.integrations.rerankers": ("rerankers", "rerankers"),
    "import mixlm_rerank.integrations.pyterrier": ("pyterrier", "pyterrier"),
    "import mixlm_rerank.integrations.mteb": ("mteb", "mteb"),
    "from mixlm_rerank.index import RedisTokenStore; RedisTokenStore('redis://localhost#name')": ("redis", "redis"),
    "from mixlm_rerank.index.shards import Shards; Shards('shards')": ("pyarrow", "parquet"),
    "from mixlm_rerank.index.ray_build import build_on_ray; build_on_ray(None, None, None)": ("ray", "ray"),
}


@pytest.mark.parametrize("code", NEEDS)
def test_the_message_names_the_command(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library and our module are as if they had never been imported."""
    library, extra = NEEDS[code]
    for name in list(sys.modules):
        if name.split(".")[0] == library or code == f"import {name}":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency) as raised:
        exec(code, {})
    assert str(raised.value).endswith(f": {install_command(extra)}")


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
