"""An exported model reads, encodes and scores as the model that it was exported from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixlm_rerank import MixLM
from mixlm_rerank.model.template import readable, text_ids, text_spans
from mixlm_rerank.onnx import OnnxMixLM
from mixlm_rerank.onnx.mixlm import POSITIONS, LightTokenizer
from mixlm_rerank.scoring import ReferenceScorer

TOLERANCE = 1e-4
texts = st.text(st.characters(codec="utf-8"), max_size=80) | st.lists(
    st.sampled_from(["dog", "moon", "[SEP]", "<eos>", "\ud83d", "bread,", "Naïve", "yes"]), max_size=60
).map(" ".join)
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

FIRST = "bert, late"  # as the default model
KINDS: dict[str, Callable[[Callable[..., MixLM], Callable[..., MixLM]], MixLM]] = {
    FIRST: lambda tiny, mixed: tiny("bert", residual="late", tokens=5),
    "bert, memory tokens, cosine": lambda tiny, mixed: tiny("bert", memory_tokens=4, pooling="cls", residual="cosine"),
    "xlm-roberta, none": lambda tiny, mixed: tiny("xlm-roberta", pooling="last", residual="none"),
    "qwen3": lambda tiny, mixed: tiny("qwen3", residual="late"),
    "bert cut at layer 1": lambda tiny, mixed: mixed("bert"),
}


# an export takes some seconds
@pytest.mark.parametrize(
    "kind", [FIRST, *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != FIRST)]
)
def test_tokens_and_scores_are_those_of_the_reference(
    tiny: Callable[..., MixLM], mixed: Callable[..., MixLM], exported: Callable[..., Path], kind: str
) -> None:
    model = KINDS[kind](tiny, mixed)
    light, reference = OnnxMixLM.from_pretrained(exported(model), threads=1), ReferenceScorer(model)

    @few
    @given(documents=st.lists(texts, min_size=1, max_size=4), query=texts, budget=st.integers(1, model.config.tokens))
    def same(documents: list[str], query: str, budget: int) -> None:
        tokens = model.encode(documents)
        np.testing.assert_allclose(light.encode(documents), tokens, atol=TOLERANCE, rtol=0)
        tokens = tokens[:, -budget:]
        expected = reference.score(query, torch.from_numpy(tokens))
        np.testing.assert_allclose(light.score(query, tokens), expected, atol=TOLERANCE, rtol=0)
        assert light.item_encoder.readable(documents) == model.item_encoder.readable(documents)
        assert readable(light.ranker.tokenizer, [query]) == readable(model.ranker.tokenizer, [query])

    same()
    assert (light.fingerprint, light.config) == (model.fingerprint, model.config)
    assert light.item_encoder.text_tokens == model.item_encoder.text_tokens


def test_more_candidates_than_a_call_takes_score_as_they_do_alone(
    tiny: Callable[..., MixLM], exported: Callable[..., Path]
) -> None:
    model = tiny("bert", residual="late", tokens=5)
    light = OnnxMixLM.from_pretrained(exported(model))
    tokens = np.random.default_rng(0).standard_normal((POSITIONS // 3 + 2, 2, 64), dtype=np.float32)
    scores = light.score("a dog", tokens)
    assert scores.shape == (len(tokens),) and light.score("a dog", tokens[:0]).shape == (0,)
    np.testing.assert_allclose(scores[-3:], light.score("a dog", tokens[-3:]), atol=TOLERANCE, rtol=0)
    several = light.score_batch(["a dog", "the moon"], [tokens[:4], tokens[:2]])
    np.testing.assert_array_equal(several[0], light.score("a dog", tokens[:4]))


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
@few
@given(text=texts)
def test_the_light_tokenizer_reads_what_the_whole_one_reads(
    checkpoint: Callable[..., Path], tiny: Callable[..., MixLM], architecture: str, text: str
) -> None:
    tokenizer = tiny(architecture).item_encoder.tokenizer
    light = LightTokenizer(checkpoint(architecture) / "tokenizer.json", tokenizer.unk_token_id)
    assert text_ids(light, [text]) == text_ids(tokenizer, [text])  # type: ignore[arg-type]
    assert text_spans(light, text) == text_spans(tokenizer, text)  # type: ignore[arg-type]
    template = "[CLS]a dog<eos> [SEP]"
    assert light.encode(template, add_special_tokens=False) == tokenizer.encode(template, add_special_tokens=False)
