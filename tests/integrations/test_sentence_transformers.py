"""A MixLM as a CrossEncoder: predicts, ranks, evaluates, is saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from mixlm_rerank import Document, MixLM, Reranker
from mixlm_rerank.errors import InputError
from mixlm_rerank.integrations.sentence_transformers import Docid, MixLMModule

QUERY = "a dog barks"


@pytest.fixture
def encoder(model: MixLM) -> CrossEncoder:
    return CrossEncoder(modules=[MixLMModule(model)], device="cpu")


def test_pairs_of_many_queries_in_any_batches(encoder: CrossEncoder, model: MixLM, documents: list[Document]) -> None:
    """Pairs of a query need not be neighbours, and the batch size does not matter."""
    pairs = [(query, document.content) for document in documents for query in (QUERY, "bread")]
    expected = [one(model, *pair) for pair in pairs]
    for batch_size in (1, 5, 32):
        scores = encoder.predict(pairs, batch_size=batch_size, activation_fn=torch.nn.Identity())
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(encoder.predict(pairs), 1 / (1 + np.exp(-np.array(expected))), atol=1e-5)


def one(model: MixLM, query: str, text: str) -> float:
    from mixlm_rerank import Candidate

    return Reranker(model).rerank(query, [Candidate("d", 0.0, text)])[0].score


def test_saved_and_loaded_it_predicts_the_same(encoder: CrossEncoder, model: MixLM, tmp_path: Path) -> None:
    """The folder is a CrossEncoder and a MixLM."""
    pairs = [(QUERY, "A dog barks."), ("cats", "A cat sleeps.")]
    expected = encoder.predict(pairs)
    encoder.save_pretrained(str(tmp_path / "saved"))
    again = CrossEncoder(str(tmp_path / "saved"), trust_remote_code=True, local_files_only=True)
    np.testing.assert_allclose(again.predict(pairs), expected, atol=1e-5)
    assert MixLM.from_pretrained(str(tmp_path / "saved"), device="cpu").fingerprint == model.fingerprint


def test_it_is_evaluated(encoder: CrossEncoder, documents: list[Document]) -> None:
    texts = [document.content for document in documents]
    samples = [{"query": QUERY, "positive": texts[:1], "negative": texts[1:]}]
    found: dict[str, Any] = CrossEncoderRerankingEvaluator(samples, name="tiny", show_progress_bar=False)(encoder)
    place = 1 + [hit["corpus_id"] for hit in encoder.rank(QUERY, texts)].index(0)
    assert found["tiny_mrr@10"] == pytest.approx(1 / place)


def test_an_index_may_come_later(encoder: CrossEncoder, reranker: Reranker) -> None:
    with pytest.raises(InputError, match=r"a Docid was given, and there is no index: MixLMModule\(model, TokenIndex"):
        encoder.rank(QUERY, [Docid("d1")])
    encoder[0].index = reranker.index
    mixed = encoder.rank(QUERY, [Docid("d1"), "A dog barks at the moon.", Docid("unknown"), ""])
    assert {hit["corpus_id"] for hit in mixed[2:]} == {2, 3}
    assert [hit["score"] for hit in mixed[2:]] == [0.0, 0.0]


def test_an_empty_query_ends_nothing(encoder: CrossEncoder) -> None:
    with pytest.warns(UserWarning, match="an empty query keeps the first stage's order"):
        scores = encoder.predict([(QUERY, "A dog barks."), (" ", "A dog barks.")])
    assert scores[0] > 0.0 and scores[1] == 0.0


@pytest.mark.parametrize("pair", [("q",), ("q", None), ("q", 3), ("q", "d", "e")])
def test_what_is_no_pair_is_refused(encoder: CrossEncoder, pair: tuple[Any, ...]) -> None:
    with pytest.raises((InputError, ValueError)):
        encoder.predict([pair])


def test_its_number_format_is_chosen_as_that_of_other_cross_encoders(encoder: CrossEncoder, tmp_path: Path) -> None:
    pairs = [(QUERY, "A dog barks."), ("cats", "A cat sleeps.")]
    encoder.save_pretrained(str(tmp_path))
    options: dict[str, Any] = {"trust_remote_code": True, "local_files_only": True, "device": "cpu"}
    halves = [
        CrossEncoder(str(tmp_path), model_kwargs={"torch_dtype": "bfloat16"}, **options),
        CrossEncoder(str(tmp_path), **options).bfloat16(),
    ]
    for half in halves:
        assert half[0].model.ranker.dtype == torch.bfloat16
        np.testing.assert_array_equal(half.predict(pairs), halves[0].predict(pairs))
        np.testing.assert_allclose(half.predict(pairs), encoder.predict(pairs), atol=0.1)


def test_lengths_are_those_of_the_model(encoder: CrossEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(str(tmp_path))
    for wrong in ({"num_labels": 2}, {"backend": "onnx"}, {"processor_kwargs": {"x": 1}}, {"config_kwargs": {"x": 1}}):
        with pytest.raises(InputError, match="it takes no {"):
            CrossEncoder(str(tmp_path), trust_remote_code=True, local_files_only=True, **wrong)
    CrossEncoder(str(tmp_path), trust_remote_code=True, local_files_only=True, num_labels=1)
    with pytest.raises(InputError, match="a MixLM has no max_length"):
        CrossEncoder(str(tmp_path), trust_remote_code=True, local_files_only=True, max_length=64)
    with pytest.raises(InputError, match="a MixLM has no max_length"):
        encoder.max_seq_length = 64
