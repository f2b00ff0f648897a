"""Documents that are vectors of the user's own: what a model computes and keeps, and that it encodes no texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.onnx import export
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer, SharedPrefixScorer


@pytest.fixture
def model(fresh: Callable[..., MixLM]) -> MixLM:
    model = fresh("bert", vectors=2, tokens=3)
    torch.nn.init.normal_(model.readout.score.weight)
    return model


def test_a_linear_layer_takes_vectors_to_the_rankers_size(model: MixLM) -> None:
    """By hand: the first three numbers of W v + b."""
    assert model.projector is not None and model.projector.weight.shape == (64, 2)
    with torch.no_grad():
        model.projector.weight[:3] = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]])
        model.projector.bias[:3] = torch.tensor([0.0, 1.0, 0.5])
        found = model.project(torch.tensor([[[3.0, 4.0]]]))
    assert found[0, 0, :3].tolist() == [3.0, 9.0, -0.5]


def test_it_has_a_projector_where_the_widths_are_equal(fresh: Callable[..., MixLM]) -> None:
    assert fresh("bert", vectors=64).projector is not None


def test_saved_and_loaded_it_is_the_same(model: MixLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = MixLM.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.fingerprint == model.fingerprint
    tokens = torch.randn(4, 3, 2)
    expected = SharedPrefixScorer(model).score("a dog", tokens)
    torch.testing.assert_close(SharedPrefixScorer(loaded).score("a dog", tokens), expected, atol=1e-5, rtol=0)
    assert not (tmp_path / "item_encoder").exists()
    assert "TokenIndex.from_vectors" in (tmp_path / "README.md").read_text()


def test_the_known_answer_notices_another_projector(model: MixLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "one")
    torch.nn.init.normal_(model.projector.weight)  # type: ignore[union-attr]
    model.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "head.safetensors").rename(tmp_path / "one" / "head.safetensors")
    with pytest.raises(InputError, match="does not give its known answer"):
        MixLM.from_pretrained(tmp_path / "one")


def test_training_leaves_an_index_valid_and_another_shape_does_not(fresh: Callable[..., MixLM], model: MixLM) -> None:
    before = model.fingerprint
    torch.nn.init.normal_(model.projector.weight)  # type: ignore[union-attr]
    assert model.fingerprint == before and model.accepts(before)
    others = {fresh("bert", vectors=width, tokens=tokens).fingerprint for width, tokens in ((3, 3), (2, 4), (3, 2))}
    assert len({before, *others}) == 4


@pytest.mark.parametrize(
    "read",
    [
        lambda model: model.encode(["a"]),
        lambda model: model.item_encoder.readable(["a"]),
        lambda model: BiEncoderScorer(model).score("a", torch.zeros(1, 1, 2)),
    ],
)
def test_texts_are_not_encoded(model: MixLM, read: Callable[[MixLM], object]) -> None:
    with pytest.raises(InputError, match=r"encodes no texts: its documents are vectors of 2 numbers.*index import"):
        read(model)


def test_the_ranker_reads_texts_in_full(model: MixLM) -> None:
    assert FullTextScorer(model).score("a dog", ["a dog barks", "bread"]).diff().abs() > 1e-3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"vectors": 2, "residual": "cosine"}, "residual 'none'"),
        ({"vectors": 2, "memory_tokens": 3}, "memory tokens"),
        ({"vectors": -2}, "not -2"),
        ({"vectors": 2, "pooling": "mean"}, "pooling, query_prompt and document_prompt are of an item encoder"),
        ({"vectors": 2, "document_prompt": "passage: "}, "are of an item encoder"),
        ({}, "give an item encoder or, where documents are vectors of your own, their width"),
    ],
)
def test_what_does_not_go_with_vectors_is_named(
    checkpoint: Callable[..., Path], options: dict[str, Any], error: str
) -> None:
    with pytest.raises(InputError, match=error):
        MixLM.from_backbones(None, checkpoint("bert"), **options)


def test_an_item_encoder_and_vectors_are_too_much(checkpoint: Callable[..., Path], mixlm: Any, tmp_path: Path) -> None:
    folder = checkpoint("bert")
    done = mixlm(f"model init {tmp_path}/m --vectors 2 --item-encoder {folder} --ranker {folder}")
    assert done.code == 2 and "one of the two" in done.err


def test_it_is_not_exported(model: MixLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="models without an item encoder cannot be exported"):
        export(model, tmp_path / "onnx")
