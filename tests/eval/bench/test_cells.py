"""Finished cells are kept, one by one, under their conditions; and the synthetic index, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mixlm_rerank import MixLM, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench import kit, synthetic
from mixlm_rerank.eval.bench.grid import rows
from mixlm_rerank.eval.bench.kit import Run
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.manifest import Packed


def test_cells_are_measured_once(tmp_path: Path) -> None:
    first = Run(tmp_path / "new", None, budgets=(1, 2))
    assert first.cell("x", lambda: {"pair": (1, 2)}) == {"pair": [1, 2]}
    first.keep("y", 2.5)
    again = Run(tmp_path / "new", None, budgets=(1, 2))
    assert again.kept == first.kept == {"x": {"pair": [1, 2]}, "y": 2.5}
    assert again.cell("y", lambda: pytest.fail("measured twice")) == 2.5


def test_other_conditions_are_refused_by_name(tmp_path: Path) -> None:
    Run(tmp_path, None, rounds=9)
    with pytest.raises(InputError, match=r"other conditions \(rounds: 9 there, 5 here\).*choose another --output"):
        Run(tmp_path, None, rounds=5)
    with pytest.raises(InputError, match=r"\(seconds: None there, 2 here\)"):
        Run(tmp_path, None, rounds=9, seconds=2)


def test_another_model_is_another_condition(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    Run(tmp_path, tiny("bert"))
    with pytest.raises(InputError, match=r"\(weights: "):
        Run(tmp_path, tiny("bert", tokens=2, memory_tokens=2))


def test_a_cell_that_cannot_be_written_is_an_error_and_the_others_are_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, None)
    run.keep("x", 1)
    before = run.path.read_bytes()

    def full(path: Path) -> None:
        raise InputError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kit, "writing", full)
        with pytest.raises(InputError, match="No space left on device; 1 cells are safe in it: make room"):
            run.keep("y", 2)
    assert run.path.read_bytes() == before and Run(tmp_path, None).kept == {"x": 1}


def test_what_follows_from_the_seconds_of_a_cell() -> None:
    """100 candidates; the cross-encoder's best takes 10 s, MixLM .5 s with a 25th of the operations."""
    seconds = {"cross-encoder, best": [8.0, 10.0, 14.0], "MixLM k=2": [0.5]}
    shares = {"ranker": 0.75, "query": 0.125, "rest": 0.125}
    cell = {
        "candidates": 100,
        "full_text_flops": 1e12,
        "contenders": [
            {
                "name": name,
                "tokens": 2 if name.startswith("MixLM") else None,
                "settings": "",
                "flops": 4e10 if name.startswith("MixLM") else 1e12,
                "seconds": taken,
                "shares": shares if name.startswith("MixLM") else None,
            }
            for name, taken in seconds.items()
        ],
    }
    text, mixlm = rows(cell, rate=4e11)
    assert text["documents_per_second"] == {"low": 100 / 12, "median": 10.0, "high": 100 / 9}
    assert (text["milliseconds"]["median"], text["rounds"]) == (10_000.0, 3)
    names = ("speedup", "flop_ratio", "realised", "gflops", "of_machine", "outside", "query")
    assert [text[name] for name in names] == [1, 1, 1, 100.0, 0.25, None, None]
    assert [mixlm[name] for name in names] == [20.0, 25.0, 0.8, 80.0, 0.2, 0.25, 0.125]


def test_a_random_index_fits_the_model_and_is_standard_normal(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    index = synthetic.random_index(tmp_path / "index", new_manifest(tiny("bert"), "int8", "random tokens"), 500)
    assert len(index) == 500 and index.manifest.complete
    index.manifest.check_model(tiny("bert"), "index")
    docids = synthetic.random_docids(200, 500, Random(0))
    assert len(set(docids)) == 200
    fetched = index.fetch(docids)
    assert fetched.found.all() and fetched.tokens.shape == (200, 4, 64)
    assert abs(fetched.tokens.mean()) < 0.02 and abs(fetched.tokens.std() - 1) < 0.02
    assert len(np.unique(fetched.tokens[:, 0, 0])) > 150
    size = sum(path.stat().st_size for path in (tmp_path / "index").glob("tokens-*"))
    assert size < synthetic.index_bytes(index.manifest, 500) < 3 * size


def test_an_interrupted_random_index_goes_on_to_the_same_bytes(
    tiny: Callable[..., MixLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = new_manifest(tiny("bert"), "int8", "random tokens")
    monkeypatch.setattr(synthetic, "CHUNK", 64)
    whole = synthetic.random_index(tmp_path / "whole", manifest, 200)

    append, chunks = LocalStore.append, list[int]()

    def cut_short(store: LocalStore, chunk: Packed) -> None:
        """Ctrl-C after the second chunk."""
        append(store, chunk)
        chunks.append(len(chunk))
        if len(chunks) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LocalStore, "append", cut_short)
        synthetic.random_index(tmp_path / "cut", manifest, 200)
    cut = synthetic.random_index(tmp_path / "cut", manifest, 200)
    docids = [synthetic.docid(row) for row in range(200)]
    assert len(cut) == 200 and np.array_equal(cut.fetch(docids).tokens, whole.fetch(docids).tokens)
    assert len(TokenIndex(tmp_path / "cut")) == len(synthetic.random_index(tmp_path / "cut", manifest, 200)) == 200
