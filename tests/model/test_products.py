"""Products of few rows, divided among the cores, are products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mixlm_rerank.model.fast.passes import MOST_ROWS, product


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@settings(deadline=None)
@given(
    rows=st.integers(0, MOST_ROWS + 2),
    features=st.sampled_from([1, 64, 192, 256, 257, 384]),
    inner=st.sampled_from([1, 48, 96]),
    bias=st.booleans(),
    strided=st.booleans(),
)
@pytest.mark.usefixtures("threads")
def test_a_divided_product_is_the_layers_own(rows: int, features: int, inner: int, bias: bool, strided: bool) -> None:
    layer = nn.Linear(inner, features, bias=bias)
    x = torch.randn(inner, rows).t() if strided else torch.randn(rows, inner)
    with torch.inference_mode():
        found, expected = product(layer, x), layer(x)
    assert found.shape == (rows, features)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_is_no_plain_layer_and_what_is_trained_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("divided")

    monkeypatch.setattr(torch, "bmm", refuse)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x, doubled, plain = torch.randn(5, 64), Doubled(64, 192), nn.Linear(64, 192)
    with torch.inference_mode():
        assert torch.equal(product(doubled, x), doubled(x))
        with pytest.raises(AssertionError, match="divided"):
            product(plain, x)
    assert torch.equal(product(plain, x), plain(x))
