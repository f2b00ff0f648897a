"""What has been encoded for half a minute is committed, however few documents that are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import Document, TokenIndex
from mixlm_rerank.index import encoding
from mixlm_rerank.index.local import LocalStore

DOCUMENTS = [Document(f"d{number}", f"text number {number} " + "word " * 97) for number in range(1000)]


class Clock:
    """Encoding a document takes ``seconds``; after some documents the process is interrupted."""

    def __init__(self, stub: Any, seconds: float, last: int = 10**9) -> None:
        self.now, self.encoded, self.parts, self.model = 0.0, 0, [], stub()
        encode = self.model.encode

        def slow(texts: list[str], *, bar: object = None) -> Any:
            self.parts.append(len(texts))
            self.now += seconds * len(texts)
            self.encoded += len(texts)
            if self.encoded > last:
                raise KeyboardInterrupt
            return encode(texts)

        self.model.encode = slow

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "lost"), [(0.5, 61), (5.0, 7), (60.0, 2)])
@pytest.mark.parametrize("how", ["build", "replace"])
def test_an_interruption_costs_half_a_minute_of_encoding(
    stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, seconds: float, lost: int
) -> None:
    """But for the first part, of 1,024 tokens: how fast it goes is not known yet."""
    clock = Clock(stub, seconds, 500)
    monkeypatch.setattr(encoding, "time", clock)
    documents = DOCUMENTS
    if how == "replace":
        TokenIndex.build(DOCUMENTS[:1], stub(), tmp_path / "index", progress=False)
        documents = [Document(one.docid, one.text + "new") for one in DOCUMENTS]
    with pytest.raises(KeyboardInterrupt):
        if how == "build":
            TokenIndex.build(iter(documents), clock.model, tmp_path / "index", progress=False)
        else:
            TokenIndex(tmp_path / "index").replace(iter(documents), clock.model, progress=False)
    committed = LocalStore(tmp_path / "index").rows - (how == "replace")
    assert clock.encoded - lost <= committed < clock.encoded
    assert all(part * seconds <= 31 or part == 1 for part in clock.parts[1 + (how == "replace") :])


def test_a_part_is_as_large_as_time_and_memory_allow(
    stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "RECORDS", 300)
    clock = Clock(stub, 0.001)
    monkeypatch.setattr(encoding, "time", clock)
    TokenIndex.build(iter(DOCUMENTS), clock.model, tmp_path / "index", progress=False)
    assert clock.parts == [11, 300, 300, 300, 89]
