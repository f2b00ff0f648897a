"""Tokens come back from their records within the stated error, and what a precision cannot hold is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError
from mixlm_rerank.index.quantiser import PRECISIONS, Quantiser

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=6)


def tokens_up_to(limit: float) -> st.SearchStrategy[NDArray[np.float32]]:
    """float32 [n, tokens, dim] with components between -limit and limit, zeros and tiny ones among them."""
    bound = float(np.float32(limit))
    components = st.sampled_from([0.0, -bound, bound]) | st.floats(-bound, bound, width=32)
    return SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=components))


def quantiser_for(precision: str, tokens: NDArray[np.float32]) -> Quantiser:
    return Quantiser(precision, tokens.shape[1], tokens.shape[2])


@given(tokens_up_to(3e38) | tokens_up_to(1.0) | tokens_up_to(1e-30))
def test_int8_keeps_every_component_within_half_a_step_of_its_block(tokens: NDArray[np.float32]) -> None:
    """A step is max|component| / 127, rounded up to 8 binary digits."""
    tokens = np.repeat(tokens, 25, axis=2) * np.linspace(0.5, 1, 25 * tokens.shape[2], dtype=np.float32)
    quantiser = quantiser_for("int8", tokens)
    back = quantiser.unpack(quantiser.pack(tokens)).astype(np.float64)
    for start in range(0, tokens.shape[2], 64):
        block = tokens[:, :, start : start + 64].astype(np.float64)
        step = np.abs(block).max(axis=2, keepdims=True) / 127
        assert (np.abs(back[:, :, start : start + 64] - block) <= step / 2 * (1 + 2**-7) + 2.0**-132).all()


@given(tokens_up_to(8e6) | tokens_up_to(1.0) | tokens_up_to(1e-3))
def test_int8_of_format_2_keeps_every_component_within_half_a_step_of_its_vector(tokens: NDArray[np.float32]) -> None:
    """The scale is fp16: relative error 2**-11, absolute error 2**-25 near zero."""
    quantiser = Quantiser("int8", tokens.shape[1], tokens.shape[2], whole_vectors=True)
    back = quantiser.unpack(quantiser.pack(tokens)).astype(np.float64)
    step = np.abs(tokens).max(axis=2, keepdims=True).astype(np.float64) / 127
    assert (np.abs(back - tokens) <= step / 2 * (1 + 2**-10) + 127 * 2.0**-25).all()


def test_one_large_component_takes_nothing_from_the_other_blocks() -> None:
    tokens = np.random.default_rng(0).normal(size=(20, 4, 640)).astype(np.float32)
    tokens[:, :, 77] = 500  # as in the middle of a large language model
    quantiser = quantiser_for("int8", tokens)
    wrong = np.abs(quantiser.unpack(quantiser.pack(tokens)) - tokens)
    wrong[:, :, 64:128] = 0
    assert wrong.max() < 0.02


@given(tokens_up_to(65504))
def test_float16_rounds_once(tokens: NDArray[np.float32]) -> None:
    quantiser = quantiser_for("float16", tokens)
    np.testing.assert_array_equal(quantiser.unpack(quantiser.pack(tokens)), tokens.astype(np.float16))


@given(tokens_up_to(3e38))
def test_float32_changes_nothing(tokens: NDArray[np.float32]) -> None:
    quantiser = quantiser_for("float32", tokens)
    np.testing.assert_array_equal(quantiser.unpack(quantiser.pack(tokens)), tokens)


@given(tokens_up_to(100), st.sampled_from(PRECISIONS), st.data())
def test_a_budget_gives_the_last_tokens_of_the_whole(
    tokens: NDArray[np.float32], precision: str, data: st.DataObject
) -> None:
    quantiser = quantiser_for(precision, tokens)
    budget = data.draw(st.integers(1, quantiser.tokens))
    records = quantiser.pack(tokens)
    np.testing.assert_array_equal(quantiser.unpack(records, budget), quantiser.unpack(records)[:, -budget:])


@given(tokens_up_to(100), st.sampled_from(PRECISIONS))
def test_a_record_depends_on_its_document_alone(tokens: NDArray[np.float32], precision: str) -> None:
    quantiser = quantiser_for(precision, tokens)
    records = quantiser.pack(tokens)
    assert records.dtype == np.uint8 and records.shape == (len(tokens), quantiser.record_bytes)
    np.testing.assert_array_equal(
        records, np.concatenate([quantiser.pack(tokens[i : i + 1]) for i in range(len(tokens))])
    )


@pytest.mark.parametrize(
    ("precision", "expected"), [("int8", 4 * (384 + 2 * 6)), ("float16", 8 * 384), ("float32", 16 * 384)]
)
def test_record_bytes(precision: str, expected: int) -> None:
    assert Quantiser(precision, tokens=4, dim=384).record_bytes == expected


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zero_vectors_stay_zero(precision: str) -> None:
    quantiser = Quantiser(precision, tokens=2, dim=4)
    tokens = np.zeros((3, 2, 4), dtype=np.float32)
    tokens[1, 1] = 5.0  # a zero vector beside one that is not
    np.testing.assert_allclose(quantiser.unpack(quantiser.pack(tokens)), tokens, rtol=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_documents_make_no_records(precision: str) -> None:
    quantiser = Quantiser(precision, tokens=2, dim=4)
    records = quantiser.pack(np.empty((0, 2, 4), dtype=np.float32))
    assert records.shape == (0, quantiser.record_bytes)
    assert quantiser.unpack(records, 1).shape == (0, 1, 4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("precision", "value"),
    [
        ("float16", 7e4),
        *((name, value) for name in PRECISIONS for value in (np.nan, np.inf, -np.inf)),
    ],
)
def test_what_a_precision_cannot_hold_is_refused(precision: str, value: float) -> None:
    tokens = np.zeros((2, 2, 4), dtype=np.float32)
    tokens[1, 0, 2] = value
    with pytest.raises(InputError, match=f"not finite, or too large for {precision}"):
        Quantiser(precision, tokens=2, dim=4).pack(tokens)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("budget", [-1, 0, 3])
def test_impossible_budgets_are_refused(budget: int, precision: str) -> None:
    quantiser = Quantiser(precision, tokens=2, dim=4)
    with pytest.raises(InputError, match=f"a budget of {budget} tokens"):
        quantiser.unpack(quantiser.pack(np.zeros((1, 2, 4), dtype=np.float32)), budget)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="int8, float16, float32, not 'bfloat16'"):
        Quantiser("bfloat16", tokens=2, dim=4)
