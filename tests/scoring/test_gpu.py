"""On a GPU: the fast scorer against the reference, compiled and recorded, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.model.running import weights_to
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer, SharedPrefixScorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
QUERIES = ["a dog barks at the moon", "cats", "the mail man and the moon and the dog"]
COUNTS = (40, 1, 130)


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "xlm-roberta", "qwen3", "llama", "mistral"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_fast_scorer_equals_the_reference(tiny: Callable[..., MixLM], architecture: str, compiled: bool) -> None:
    model = deepcopy(tiny(architecture, residual="late")).to("cuda")
    draw = torch.Generator().manual_seed(0)
    tokens = [2 * torch.randn(count, 3, 64, generator=draw) for count in COUNTS]
    expected = ReferenceScorer(model).score_batch(QUERIES, tokens)
    if compiled:
        model.ranker.compile_packed()
    for _ in range(2):  # a pass is recorded, and played
        for found, right in zip(SharedPrefixScorer(model).score_batch(QUERIES, tokens), expected, strict=True):
            torch.testing.assert_close(found, right, atol=1e-4, rtol=0)
    few = SharedPrefixScorer(model).score(QUERIES[2], tokens[2][:7])  # fits into a longer recording
    torch.testing.assert_close(few, expected[2][:7], atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_cut_model_equals_the_reference_on_the_cpu(
    mixed: Callable[..., MixLM], architecture: str, compiled: bool
) -> None:
    plain = mixed(architecture)
    model = deepcopy(plain).to("cuda")
    if compiled:
        model.ranker.compile_packed()
    texts = [f"a dog {'barks ' * number}" for number in range(20)]
    tokens = torch.from_numpy(plain.encode(texts))
    for query in QUERIES:
        expected, found = ReferenceScorer(plain).score(query, tokens), SharedPrefixScorer(model).score(query, tokens)
        torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
@pytest.mark.parametrize("compiled", [False, True])
def test_titles_are_read_as_the_reference_reads_them(
    tiny: Callable[..., MixLM], architecture: str, compiled: bool
) -> None:
    model = deepcopy(tiny(architecture, residual="late", title_tokens=4)).to("cuda")
    draw = torch.Generator().manual_seed(0)
    tokens = [2 * torch.randn(count, 3, 64, generator=draw) for count in COUNTS]
    titles = [model.ranker.titles(["", "dogs", "the mail man and the moon"] * count)[:count] for count in COUNTS]
    expected = ReferenceScorer(model).score_batch(QUERIES, tokens, titles)
    if compiled:
        model.ranker.compile_packed()
    for _ in range(2):
        for found, right in zip(SharedPrefixScorer(model).score_batch(QUERIES, tokens, titles), expected, strict=True):
            torch.testing.assert_close(found, right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("residual", ["none", "late"])
def test_full_text_mode_equals_the_cpu(tiny: Callable[..., MixLM], residual: str) -> None:
    model = deepcopy(tiny("bert", residual=residual))
    texts = ["a dog barks", "the moon is a rock " * 9, "cats"]
    expected = FullTextScorer(model).score(QUERIES[0], texts)
    torch.testing.assert_close(FullTextScorer(model.to("cuda")).score(QUERIES[0], texts), expected, atol=1e-4, rtol=0)


def test_bfloat16_ranks_nearly_as_float32(tiny: Callable[..., MixLM]) -> None:
    model = deepcopy(tiny("qwen3", residual="none")).to("cuda")
    tokens = 2 * torch.randn(300, 4, 64, generator=torch.Generator().manual_seed(1))
    exact = SharedPrefixScorer(model).score(QUERIES[0], tokens)
    weights_to(model.ranker, torch.bfloat16)
    model.ranker.compile_packed()
    found = SharedPrefixScorer(model).score(QUERIES[0], tokens)
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.995


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_two_threads_share_a_compiled_scorer(tiny: Callable[..., MixLM], architecture: str) -> None:
    model = deepcopy(tiny(architecture, residual="late")).to("cuda")
    draw = torch.Generator().manual_seed(2)
    calls = [[2 * torch.randn(count, 3, 64, generator=draw) for count in (many, 3, 2 * many)] for many in (5, 40, 90)]
    expected = [ReferenceScorer(model).score_batch(QUERIES, tokens) for tokens in calls]
    model.ranker.compile_packed()
    scorer = SharedPrefixScorer(model)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda number: scorer.score_batch(QUERIES, calls[number % 3]), range(30))
        for number, scores in enumerate(found):
            for one, right in zip(scores, expected[number % 3], strict=True):
                torch.testing.assert_close(one, right, atol=1e-4, rtol=0)
