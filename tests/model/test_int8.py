"""A ranker in int8: nearly the same scores over the same token index; what it cannot do is said."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.fast.int8 import in_int8, is_int8
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer, SharedPrefixScorer

QUERY = "a dog barks at the moon"


@pytest.fixture
def smooth(checkpoint: Callable[..., Path], judge: Callable[..., Path]) -> Callable[[str], MixLM]:
    """``smooth("bert")``: small weights, so that layers pass a rounding error on and do not magnify it.

    ``smooth("cut bert")``: cut out of a cross-encoder.
    """

    def make(kind: str) -> MixLM:
        if kind.startswith("cut "):
            return MixLM.from_cross_encoder(judge(kind.removeprefix("cut "), initializer_range=0.1), tokens=4)
        folder = checkpoint(kind, initializer_range=0.1)
        model = MixLM.from_backbones(folder, folder, residual="none", max_query_tokens=64, max_document_tokens=40)
        torch.nn.init.normal_(model.readout.score.weight, generator=torch.Generator().manual_seed(0))
        return model

    return make


def assert_near(expected: torch.Tensor, found: torch.Tensor) -> None:
    """Scores of other layers would not correlate; those in int8 do by .96 and more, whatever the processor."""
    assert not torch.equal(expected, found)
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.8


@pytest.mark.parametrize("kind", ["bert", "modernbert", "qwen3", "cut bert", "cut qwen3"])
def test_scores_are_nearly_those_of_float32(smooth: Callable[[str], MixLM], kind: str) -> None:
    model = smooth(kind)
    int8 = in_int8(model)
    assert is_int8(int8) and not is_int8(model)
    tokens = torch.randn(40, 4, model.item_encoder.token_size, generator=torch.Generator().manual_seed(1))
    texts = [f"a dog {'barks ' * number}" for number in range(20)]
    assert_near(*(scorer.score(QUERY, tokens) for scorer in (ReferenceScorer(model), SharedPrefixScorer(int8))))
    assert_near(*(FullTextScorer(each).score(QUERY, texts) for each in (model, int8)))


def test_one_token_index_fits_both(smooth: Callable[[str], MixLM], documents: list[Document], tmp_path: Path) -> None:
    smooth("bert").save_pretrained(tmp_path / "model")
    model, int8 = (MixLM.from_pretrained(tmp_path / "model", dtype=dtype) for dtype in ("float32", "int8"))
    assert model.fingerprint == int8.fingerprint and int8.name == model.name
    assert weights_hash(model) != weights_hash(int8) == weights_hash(in_int8(model))
    index = TokenIndex.build(documents, model, tmp_path / "tokens", progress=False)
    docids = [document.docid for document in documents]
    scores = [{doc.docid: doc.score for doc in Reranker(each, index).rerank(QUERY, docids)} for each in (model, int8)]
    assert_near(*(torch.tensor([of_one[docid] for docid in docids]) for of_one in scores))


def test_it_is_not_written(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a model in int8 cannot be written: load it in float32"):
        in_int8(tiny("bert")).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_it_is_for_cpus(tiny: Callable[..., MixLM]) -> None:
    with pytest.raises(InputError, match="int8 is for CPUs, and the model is on meta: take bfloat16 there"):
        in_int8(copy.deepcopy(tiny("bert")).to("meta"))


def test_a_pytorch_without_it_is_named(tiny: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **named: object) -> None:
        raise RuntimeError("Didn't find engine for operation")

    monkeypatch.setattr(torch.ao.quantization, "quantize_dynamic", fail)
    with pytest.raises(InputError, match="has no int8 layers for this processor .*: take float32"):
        in_int8(tiny("bert"))
