"""Every way of scoring gives the reference's log-odds, whatever the company, order, batch and budget."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixlm_rerank import MixLM
from mixlm_rerank.model.readout import late_interaction
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer, ReferenceScorer, SharedPrefixScorer

TOLERANCE = 1e-4  # log-odds, float32: the promise of SharedPrefixScorer
ARCHITECTURES = ("bert", "modernbert", "xlm-roberta", "qwen3", "llama", "mistral", "gemma2", "gpt-oss")
QUERY = "a dog barks at the moon man and the cat sleeps"

many = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
queries = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)


def random_tokens(n: int, k: int, d: int = 64, seed: int = 0) -> Tensor:
    return 2 * torch.randn(n, k, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@many
@given(
    query=queries,
    n=st.integers(1, 12),
    k=st.integers(1, 4),
    seed=st.integers(0, 99),
    positions=st.integers(1, 400),
    residual=st.sampled_from(["none", "cosine", "late"]),
)
def test_shared_prefix_equals_reference(
    tiny: Callable[..., MixLM], architecture: str, query: str, n: int, k: int, seed: int, positions: int, residual: str
) -> None:
    """On random queries, tokens, budgets and residuals, cut into forward passes of any size."""
    model = tiny(architecture, residual=residual)
    tokens = random_tokens(n, k, seed=seed)
    fast = SharedPrefixScorer(model, positions=positions).score(query, tokens)
    torch.testing.assert_close(fast, ReferenceScorer(model).score(query, tokens), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("memory_tokens", [0, 4])
@pytest.mark.parametrize("residual", ["none", "late"])
def test_sameness_holds_with_every_residual_and_with_memory_tokens(
    tiny: Callable[..., MixLM], architecture: str, memory_tokens: int, residual: str
) -> None:
    model = tiny(architecture, residual=residual, memory_tokens=memory_tokens)
    tokens = torch.from_numpy(model.encode(["a dog", "the moon is a rock", "bread"]))
    fast = SharedPrefixScorer(model).score(QUERY, tokens)
    torch.testing.assert_close(fast, ReferenceScorer(model).score(QUERY, tokens), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sameness_holds_for_vectors_of_the_users_own(tiny: Callable[..., MixLM], architecture: str) -> None:
    model, tokens = tiny(architecture, vectors=5, tokens=3), random_tokens(20, 3, d=5)
    fast = SharedPrefixScorer(model, positions=40).score(QUERY, tokens)
    torch.testing.assert_close(fast, ReferenceScorer(model).score(QUERY, tokens), atol=TOLERANCE, rtol=0)
    assert fast.std() > 0.01


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [ReferenceScorer, SharedPrefixScorer, FullTextScorer, BiEncoderScorer])
def test_scores_and_tokens_do_not_depend_on_the_callers_mode(
    tiny: Callable[..., MixLM], kind: Callable[..., Any], autocast: bool
) -> None:
    """Training mode (dropout) and mixed precision; the model stays in the mode in which it was."""
    model = copy.deepcopy(tiny("bert", residual="late"))
    given = ["bread", "a dog"] if kind is FullTextScorer else random_tokens(2, 3)
    scores, tokens = kind(model).score(QUERY, given), model.encode(["a dog"])
    model.train()
    model.readout.eval()
    with torch.autocast("cpu", enabled=autocast):
        assert torch.equal(kind(model).score(QUERY, given), scores)
        assert np.array_equal(model.encode(["a dog"]), tokens)
    assert model.training and model.ranker.backbone.training and not model.readout.training


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta"])
def test_products_that_are_divided_among_cores_change_no_score(
    tiny: Callable[..., MixLM], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is computed by one core, with a query that takes the backbone's own pass."""
    model = tiny(architecture, residual="late")
    tokens, plain, divided = random_tokens(20, 3), torch.bmm, []
    monkeypatch.setattr(model.item_encoder, "_plain", None)
    expected = ReferenceScorer(model).score(QUERY, tokens)
    monkeypatch.undo()
    monkeypatch.setattr("mixlm_rerank.model.fast.passes.FEWEST_FEATURES", 1)
    monkeypatch.setattr(torch, "bmm", lambda a, b: divided.append(len(a)) or plain(a, b))
    torch.set_num_threads(2)
    try:
        fast = SharedPrefixScorer(model).score(QUERY, tokens)
    finally:
        torch.set_num_threads(1)
    assert set(divided) == {2}
    torch.testing.assert_close(fast, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_candidate_scores_the_same_alone_among_7_and_among_300_in_any_order(
    tiny: Callable[..., MixLM], architecture: str
) -> None:
    scorer = SharedPrefixScorer(tiny(architecture))
    tokens = random_tokens(300, 4)
    among_300 = scorer.score(QUERY, tokens)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    shuffled = torch.empty(300)
    shuffled[order] = scorer.score(QUERY, tokens[order])
    alone = torch.cat([scorer.score(QUERY, tokens[row : row + 1]) for row in range(0, 300, 50)])
    among_7 = scorer.score(QUERY, tokens[:7])
    assert among_300.std() > 0.1  # the scores differ, so equality says something
    torch.testing.assert_close(shuffled, among_300, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(alone, among_300[::50], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(among_7, among_300[:7], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@many
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=5), positions=st.integers(20, 300))
def test_many_queries_a_forward_pass_equal_one_by_one(
    tiny: Callable[..., MixLM], architecture: str, counts: list[int], positions: int
) -> None:
    model = tiny(architecture)
    texts = [QUERY[: 3 + 7 * i] for i in range(len(counts))]
    tokens = [random_tokens(count, 2, seed=i) for i, count in enumerate(counts)]
    together = SharedPrefixScorer(model, positions=positions).score_batch(texts, tokens)
    for text, candidates, scores in zip(texts, tokens, together, strict=True):
        torch.testing.assert_close(scores, ReferenceScorer(model).score(text, candidates), atol=TOLERANCE, rtol=0)


def test_a_prefix_longer_than_a_forward_pass_is_not_computed_for_every_candidate(
    tiny: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    tokens, read = random_tokens(60, 3), []
    forward = model.ranker.forward_packed
    monkeypatch.setattr(model.ranker, "forward_packed", lambda *given: read.append(len(given[1][0])) or forward(*given))
    scores = SharedPrefixScorer(model, positions=8).score(QUERY, tokens)
    length = len(model.ranker.prefixes([QUERY])[0])
    assert length > 8 and sum(read) == 60 and len(read) <= -(-60 // (length // 4))
    torch.testing.assert_close(scores, ReferenceScorer(model).score(QUERY, tokens), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_score_depends_on_query_and_every_token(tiny: Callable[..., MixLM], architecture: str) -> None:
    """Guards the tests above: a scorer that ignores its input would pass them all."""
    model = tiny(architecture, residual="none")
    scorer = SharedPrefixScorer(model)
    tokens = random_tokens(1, 4)
    base = scorer.score(QUERY, tokens)
    assert (scorer.score("bread", tokens) - base).abs() > 1e-3
    for position in range(4):
        changed = tokens.clone()
        changed[0, position] += random_tokens(1, 1, seed=9)[0, 0]
        assert (scorer.score(QUERY, changed) - base).abs() > 1e-3, position


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_text_scores_do_not_depend_on_the_batch(tiny: Callable[..., MixLM], architecture: str) -> None:
    model = tiny(architecture)
    texts = ["dog", "a cat never barks", "the moon is a rock that goes round the earth", "", "yes"]
    together = FullTextScorer(model).score(QUERY, texts)
    alone = torch.cat([FullTextScorer(model).score(QUERY, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)
    assert together.std() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_text_mode_is_the_ranker_over_text_embeddings(tiny: Callable[..., MixLM], architecture: str) -> None:
    """Fed with the embeddings of a text's tokens, the shared-prefix scorer gives the full-text score."""
    model = tiny(architecture, residual="none")
    text = "a cat never barks"
    (embeddings,) = model.ranker.documents([text], [0])
    expected = SharedPrefixScorer(model).score(QUERY, embeddings[None].detach())
    torch.testing.assert_close(FullTextScorer(model).score(QUERY, [text]), expected, atol=TOLERANCE, rtol=0)


def test_residual_of_an_untrained_model_ranks_like_the_bi_encoder(
    tiny: Callable[..., MixLM], checkpoint: Callable[..., object]
) -> None:
    folder = checkpoint("bert")
    model = MixLM.from_backbones(folder, folder, max_query_tokens=64, max_document_tokens=64)  # type: ignore[arg-type]
    tokens = random_tokens(50, 4)
    scores = SharedPrefixScorer(model).score(QUERY, tokens)
    torch.testing.assert_close(scores, 20 * BiEncoderScorer(model).score(QUERY, tokens))


def test_late_interaction_by_hand() -> None:
    """Two query states, two documents of two tokens each."""
    states = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    tokens = torch.tensor([[[2.0, 0.0], [4.0, 3.0]], [[-1.0, 0.0], [0.0, -2.0]]])
    expected = torch.tensor([(1.0 + 0.6) / 2, (0.0 + 0.0) / 2])
    torch.testing.assert_close(late_interaction([states], tokens), expected[None])


def test_scores_are_float32_in_bfloat16_models_and_near_the_reference(
    tiny: Callable[..., MixLM], tmp_path: object
) -> None:
    model = tiny("bert")
    model.save_pretrained(str(tmp_path))
    half = MixLM.from_pretrained(str(tmp_path), dtype="bfloat16")
    tokens = random_tokens(100, 4)
    scores = SharedPrefixScorer(half).score(QUERY, tokens)
    exact = ReferenceScorer(model).score(QUERY, tokens)
    assert half.ranker.dtype == torch.bfloat16 and scores.dtype == torch.float32
    assert len(scores.unique()) > 95  # no collapse into ties
    assert torch.corrcoef(torch.stack([scores, exact]))[0, 1] > 0.99


def test_the_default_model_agrees_with_the_reference() -> None:
    model = MixLM.from_pretrained("default")
    for k in (1, 8):
        tokens = random_tokens(40, k, d=384)
        for query in ("why do dogs bark?", "w " * 300):
            fast = SharedPrefixScorer(model).score(query, tokens)
            some = slice(None, None, 9)  # the reference takes its time
            expected = ReferenceScorer(model).score(query, tokens[some])
            torch.testing.assert_close(fast[some], expected, atol=TOLERANCE, rtol=0)
            assert fast.std() > 0.1


def test_threads_share_a_scorer(tiny: Callable[..., MixLM]) -> None:
    model = tiny("bert", residual="late")
    scorer, calls = SharedPrefixScorer(model), [(f"{QUERY} {seed}", random_tokens(seed + 1, 3)) for seed in range(8)]
    expected = [scorer.score(*call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(lambda call: scorer.score(*call), 10 * calls), 10 * expected, strict=True):
            torch.testing.assert_close(found, right, atol=TOLERANCE, rtol=0)
