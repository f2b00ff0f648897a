"""Finished cells are kept, one by one, under their conditions; and the synthetic index, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mixlm_rerank import MixLM, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench import stores
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.plan import Cell, GridOptions, grid_cells
from mixlm_rerank.eval.bench.rows import rows


def test_cells_are_there_again(tmp_path: Path) -> None:
    first = Cells(tmp_path / "new", {"machine": "a", "budgets": (1, 2)})
    assert first.keep("x", {"pair": (1, 2)}) == {"pair": [1, 2]}
    first.keep("y", 2.5)
    first.close()
    again = Cells(tmp_path / "new", {"machine": "a", "budgets": (1, 2)})
    assert again.kept == first.kept == {"x": {"pair": [1, 2]}, "y": 2.5}
    again.close()


@pytest.mark.parametrize("torn", ['{"cell": "y", "val', '{"cell": "y", "values": 2}', "[1]\n", "\x00\n"])
def test_a_line_that_was_cut_off_is_lost_alone(tmp_path: Path, torn: str) -> None:
    cells = Cells(tmp_path, {"machine": "a"})
    cells.keep("x", 1)
    cells.close()
    whole = cells.path.read_bytes()
    cells.path.write_bytes(whole + torn.encode())
    again = Cells(tmp_path, {"machine": "a"})
    assert again.kept == {"x": 1} and cells.path.read_bytes() == whole
    again.keep("y", 3)
    again.close()
    last = Cells(tmp_path, {"machine": "a"})
    assert last.kept == {"x": 1, "y": 3}
    last.close()


def test_other_conditions_are_refused_by_name(tmp_path: Path) -> None:
    Cells(tmp_path, {"machine": "a", "rounds": 9}).close()
    with pytest.raises(InputError, match=r"other conditions \(rounds: 9 there, 5 here\).*choose another --output"):
        Cells(tmp_path, {"machine": "a", "rounds": 5})
    with pytest.raises(InputError, match=r"\(weights: None there, 1f here\)"):
        Cells(tmp_path, {"machine": "a", "rounds": 9, "weights": "1f"})


def test_conditions_tell_models_apart(tiny: Callable[..., MixLM]) -> None:
    one, other = conditions(tiny("bert"), rounds=3), conditions(tiny("bert", tokens=2, memory_tokens=2), rounds=3)
    assert one["rounds"] == 3 and one["torch"] and one["threads"]
    assert one["weights"] != other["weights"]


def test_cells_of_the_grid_quick_ones_first() -> None:
    cells = grid_cells(GridOptions())
    assert len(cells) == 4 * 3 + 2 and cells[0] == Cell(10, 64, 16) and cells[-1] == Cell(1000, 512, 16)
    assert [cell for cell in cells if cell.query != 16] == [Cell(100, 256, 8), Cell(100, 256, 64)]
    assert grid_cells(GridOptions(lengths=(64,), candidates=(10,))) == [Cell(10, 64, 16)]


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
                "kind": name.split()[0].strip(","),
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
    assert (text.documents_per_second.median, text.milliseconds.median, text.rounds) == (10.0, 10_000.0, 3)
    assert (text.documents_per_second.low, text.documents_per_second.high) == (100 / 12, 100 / 9)
    assert (text.speedup, text.flop_ratio, text.realised, text.gflops, text.of_machine) == (1, 1, 1, 100.0, 0.25)
    assert (mixlm.speedup, mixlm.flop_ratio, mixlm.realised) == (20.0, 25.0, 0.8)
    assert (mixlm.gflops, mixlm.of_machine) == (80.0, 0.2)
    assert (mixlm.outside, mixlm.query, text.outside) == (0.25, 0.125, None)


def test_a_random_index_fits_the_model_and_is_standard_normal(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    index = stores.random_index(tmp_path / "index", stores.manifest_for(tiny("bert")), 500)
    assert len(index) == 500 and index.manifest.complete
    index.manifest.check_model(tiny("bert"), "index")
    docids = stores.random_docids(200, 500, Random(0))
    assert len(set(docids)) == 200
    fetched = index.fetch(docids)
    assert fetched.found.all() and fetched.tokens.shape == (200, 4, 64)
    assert abs(fetched.tokens.mean()) < 0.02 and abs(fetched.tokens.std() - 1) < 0.02
    assert len(np.unique(fetched.tokens[:, 0, 0])) > 150
    size = sum(path.stat().st_size for path in (tmp_path / "index").glob("tokens-*"))
    assert size < stores.index_bytes(index.manifest, 500) < 3 * size


def test_an_interrupted_random_index_goes_on_to_the_same_bytes(
    tiny: Callable[..., MixLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = stores.manifest_for(tiny("bert"))
    monkeypatch.setattr(stores, "CHUNK", 64)
    whole = stores.random_index(tmp_path / "whole", manifest, 200)

    class Bar:
        """Ctrl-C after the second chunk."""

        chunks = 0

        def update(self, n: float, /) -> None:
            self.chunks += 1
            if self.chunks == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stores.random_index(tmp_path / "cut", manifest, 200, bar=Bar())
    cut = stores.random_index(tmp_path / "cut", manifest, 200)
    docids = [stores.docid(row) for row in range(200)]
    assert len(cut) == 200 and np.array_equal(cut.fetch(docids).tokens, whole.fetch(docids).tokens)
    assert len(TokenIndex(tmp_path / "cut")) == len(stores.random_index(tmp_path / "cut", manifest, 200)) == 200
