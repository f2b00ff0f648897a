"""The example on each page of docs/integrations runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document, MixLM, TokenIndex

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs" / "integrations").glob("*.md"))


@pytest.fixture(scope="module")
def place(documents: list[Document], lucene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with ``tokens``, an index by the default model, and ``lucene``."""
    place = tmp_path_factory.mktemp("pages")
    TokenIndex.build(documents, MixLM.from_pretrained("default", device="cpu"), place / "tokens", progress=False)
    (place / "lucene").symlink_to(lucene)
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_runs_and_says_something(
    page: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    exec(code, names)
    said = {"sentence-transformers": "corpus_id", "rerankers": "0 "}.get(page.stem, "d1")
    assert said in capsys.readouterr().out
    assert len([line for line in code.splitlines() if line.strip()]) <= 13


def test_there_is_a_page_for_every_adapter() -> None:
    helpers = ("__init__", "documents", "java", "lucene")
    adapters = {
        path.stem.replace("_", "-") for path in (ROOT / "integrations").glob("*.py") if path.stem not in helpers
    }
    assert {page.stem for page in PAGES} == adapters
