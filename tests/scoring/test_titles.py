"""Titles as text beside embedding tokens: every scorer reads them, and what is no title is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer, ReferenceScorer, SharedPrefixScorer

ARCHITECTURES = ("bert", "modernbert", "qwen3", "llama")
QUERY = "a dog barks at the moon man"
TITLES = ["", "Dogs", "The dog", "moon, mail man and the cat that sleeps all day", "Bread"]

many = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
titles_of_queries = st.lists(st.lists(st.sampled_from(TITLES), max_size=9), min_size=1, max_size=4)


def random_tokens(n: int, k: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(n, k, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@many
@given(titles=titles_of_queries, k=st.integers(1, 4), positions=st.integers(1, 400))
def test_shared_prefix_equals_reference(
    tiny: Callable[..., MixLM], architecture: str, titles: list[list[str]], k: int, positions: int
) -> None:
    """Queries together, titles of any length beside each other, cut into forward passes of any size."""
    model = tiny(architecture, title_tokens=6, residual="late")
    queries = [QUERY[: 5 + 4 * number] for number in range(len(titles))]
    tokens = [random_tokens(len(own), k, seed=number) for number, own in enumerate(titles)]
    ids = [model.ranker.titles(own) for own in titles]
    found = SharedPrefixScorer(model, positions=positions).score_batch(queries, tokens, ids)
    for query, own, title, scores in zip(queries, tokens, ids, found, strict=True):
        torch.testing.assert_close(scores, ReferenceScorer(model).score(query, own, title), atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_title_is_read_as_the_beginning_of_a_text(tiny: Callable[..., MixLM], architecture: str) -> None:
    """With the input embeddings of words for embedding tokens, title and tokens are that text in full-text mode."""
    model = tiny(architecture, title_tokens=12, residual="none")
    words = model.ranker.tokenizer(" bread salt", add_special_tokens=False)["input_ids"]
    tokens = model.ranker.embedded(torch.tensor([words])).detach()
    (score,) = ReferenceScorer(model).score(QUERY, tokens, model.ranker.titles(["The dog barks"]))
    (expected,) = FullTextScorer(model).score(QUERY, ["The dog barks bread salt"])
    (untitled,) = FullTextScorer(model).score(QUERY, [" bread salt"])
    assert float(score) == pytest.approx(float(expected), abs=1e-4)
    assert abs(float(expected - untitled)) > 1e-2
    for titles in (None, model.ranker.titles([""])):
        assert float(ReferenceScorer(model).score(QUERY, tokens, titles)) == pytest.approx(float(untitled), abs=1e-4)


def test_a_title_is_cut_and_filled_up(tiny: Callable[..., MixLM]) -> None:
    model = tiny(title_tokens=3)
    tokenizer = model.ranker.tokenizer
    dog, long = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("dog", TITLES[3]))
    assert len(dog) < 3 < len(long)
    expected = [[*dog, *[-1] * (3 - len(dog))], long[:3], [-1, -1, -1]]
    assert model.ranker.titles(["dog", TITLES[3], ""]).tolist() == expected
    assert model.ranker.titles([]).shape == (0, 3)


@pytest.mark.parametrize("title", ["", " ", "\n"])
def test_a_blank_title_is_none(tiny: Callable[..., MixLM], title: str) -> None:
    """Also where the prompt ends in a space, which belongs to what follows."""
    for prompt in (None, "Query: {text} Title and text: {document} So?"):
        ids = tiny("qwen3", title_tokens=3, prompt=prompt).ranker.titles([title, "a dog"])
        assert ids[0].tolist() == [-1, -1, -1] and (ids[1] >= 0).any()


def test_the_bi_encoder_reads_no_titles(tiny: Callable[..., MixLM]) -> None:
    model, tokens = tiny(title_tokens=3), random_tokens(2, 2)
    scorer = BiEncoderScorer(model)
    assert torch.equal(scorer.score(QUERY, tokens, model.ranker.titles(["a", "b"])), scorer.score(QUERY, tokens))


@pytest.mark.parametrize("kind", [ReferenceScorer, SharedPrefixScorer])
@pytest.mark.parametrize(
    ("title_tokens", "titles", "message"),
    [
        (0, [[5, 6]], "reads no titles: leave them out"),
        (2, [[5, 6], [5, 6]], r"titles of \[2\] candidates do not fit tokens of \[1\]"),
        (2, [[5, 6, 7]], r"integers \[n, 2\], not torch.int32 \[1, 3\]"),
        (2, [[400, -1]], "token ids below 400"),
        (2, [[-1, 5]], "with -1 after their end alone"),
    ],
)
def test_what_is_no_title_is_refused(
    tiny: Callable[..., MixLM], kind: Any, title_tokens: int, titles: list[list[int]], message: str
) -> None:
    model = tiny(title_tokens=title_tokens)
    with pytest.raises(InputError, match=message):
        kind(model).score(QUERY, random_tokens(1, 2), torch.tensor(titles, dtype=torch.int32))
    with pytest.raises(InputError, match="reads no titles|integers"):
        kind(model).score(QUERY, random_tokens(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"title_tokens": -1}, "must not be negative"),
        ({"title_tokens": "3"}, "title_tokens must be a whole number, not '3'"),
        ({"title_tokens": 60}, "max_query_tokens=64, 60 title tokens and 4 embedding tokens do not fit"),
    ],
)
def test_a_model_that_cannot_read_so_many_is_refused(
    tiny: Callable[..., MixLM], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**options)


def test_a_mix_layer_takes_no_titles(mixed: Callable[..., MixLM], tmp_path: Path) -> None:
    mixed().save_pretrained(tmp_path / "cut")
    with pytest.raises(InputError, match="title_tokens needs mix layer 0, not 1"):
        MixLM.from_pretrained(tmp_path / "cut", title_tokens=4)


def test_a_saved_model_learns_to_read_titles(fresh: Callable[..., MixLM], tmp_path: Path) -> None:
    """What else it computes stays, and so does its fingerprint where it reads none."""
    plain = fresh()
    torch.nn.init.normal_(plain.readout.score.weight)
    plain.save_pretrained(tmp_path / "plain")
    MixLM.from_pretrained(tmp_path / "plain", title_tokens=5).save_pretrained(tmp_path / "titled")
    titled, tokens = MixLM.from_pretrained(tmp_path / "titled"), random_tokens(3, 2)
    assert (titled.config.title_tokens, plain.config.title_tokens) == (5, 0)
    assert torch.equal(SharedPrefixScorer(titled).score(QUERY, tokens), SharedPrefixScorer(plain).score(QUERY, tokens))
    assert titled.fingerprint != plain.fingerprint
    assert MixLM.from_pretrained(tmp_path / "titled", title_tokens=0).fingerprint == plain.fingerprint
    assert (
        "| tokens of the title that the ranker reads as text | 5 |" in (tmp_path / "titled" / "README.md").read_text()
    )


def test_ids_of_another_tokenizer_have_another_fingerprint(fresh: Callable[..., MixLM]) -> None:
    """Titles in an index are ids of the ranker's vocabulary; without titles only the item encoder counts."""
    models = [fresh(title_tokens=count) for count in (4, 5, 0)]
    before = [model.fingerprint for model in models]
    for model in models:
        model.ranker.tokenizer.add_tokens(["zebra"])
        model._fingerprints.clear()
    after = [model.fingerprint for model in models]
    assert len(set(before[:2] + after[:2])) == 4
    assert before[2] == after[2]


def test_the_pages_example_runs(
    mixlm: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the training between its commands."""
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    _, section = page.split("## Titles beside the embedding tokens")
    (command,) = re.findall(r"^mixlm-rerank (model titles .*)$", section, flags=re.MULTILINE)
    code, *_ = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    done = mixlm(command)
    assert done.code == 0, done.err
    Path("fitted").mkdir()
    Path("titled").rename("fitted/model")
    exec(code, {})
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["d1", "d2"]
