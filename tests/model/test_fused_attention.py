"""The GPU's attention kernel gives what the tiles give: on a GPU, or without one by Triton's interpreter."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

from mixlm_rerank.model.fast.attention import attention_of, tiles_of
from mixlm_rerank.model.fast.layout import PackedLayout

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HEADS, KEY_HEADS, HEAD = 4, 2, 16

# (length of a prefix, items behind it) of each query; length of an item; causal? A block is 64 rows.
LAYOUTS = [
    ([(1, 1)], 1, True),
    ([(64, 2), (5, 70), (65, 1)], 1, False),
    ([(63, 12), (140, 1)], 9, True),
    ([(63, 12), (140, 1)], 9, False),
    ([(2, 3)], 64, False),
    ([(66, 1), (1, 2)], 65, True),
    ([(66, 1), (1, 2)], 65, False),
    ([(3, 2)], 150, True),
]


@pytest.fixture(scope="module")
def fused() -> ModuleType:
    pytest.importorskip("triton")
    return importlib.import_module("mixlm_rerank.model.fast.fused_attention")


@pytest.mark.parametrize(("sizes", "item_length", "causal"), LAYOUTS, ids=str)
def test_the_kernel_equals_the_tiles(
    fused: ModuleType, sizes: list[tuple[int, int]], item_length: int, causal: bool
) -> None:
    """Prefixes and items below, at and above a block; long items, which are full texts, too."""
    layout = PackedLayout(*zip(*sizes, strict=True), item_length, causal)  # type: ignore[arg-type]
    length = sum(prefix + count * item_length for prefix, count in sizes)
    draw = torch.Generator().manual_seed(0)
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    query, key, value = (torch.randn(length, count, HEAD, generator=draw).to(DEVICE) for count in heads)
    fast, plain = fused.fused_tiles(layout, DEVICE), tiles_of(layout, None, DEVICE)
    expected = plain.attend(query, key, value, 0.3)
    torch.testing.assert_close(fast.attend(query, key, value, 0.3), expected, atol=1e-5, rtol=1e-5)
    rows = layout.score_rows(DEVICE)
    found = fast.attend_scores(query[rows], key, value, 0.3)
    torch.testing.assert_close(found, expected[rows], atol=1e-5, rtol=1e-5)


def test_an_empty_tile_writes_nothing(fused: ModuleType) -> None:
    """Recorded passes have room for more tiles than there are."""
    tiles = fused.fused_tiles(PackedLayout((3,), (2,), 2, True), DEVICE)
    longer = fused.FusedTiles(torch.cat([tiles.every, torch.zeros_like(tiles.every)]), tiles.scores, 2, True)
    query, key, value = (torch.randn(7, count, HEAD, device=DEVICE) for count in (HEADS, KEY_HEADS, KEY_HEADS))
    expected = tiles.attend(query, key, value, 0.3)
    torch.testing.assert_close(longer.attend(query, key, value, 0.3), expected)


def test_on_a_cpu_with_gradients_and_for_windows_there_are_tiles(
    fused: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "fused_tiles", lambda *parts: "fused")
    monkeypatch.setattr("mixlm_rerank.model.fast.attention.tiles_of", lambda *parts: "tiles")
    layout, gpu = PackedLayout((3,), (2,), 2, True), torch.device("cuda")
    assert attention_of(layout, None, gpu, 16) == "tiles"  # gradients
    with torch.inference_mode():
        assert attention_of(layout, None, gpu, 16) == "fused"
        assert attention_of(layout, 4, gpu, 16) == attention_of(layout, None, gpu, 80) == "tiles"
        assert attention_of(layout, None, torch.device("cpu"), 16) == "tiles"
