"""Teacher scores: computed once, kept, only those that are wanted; and what they say of queries nobody judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner

from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.sentence_transformers import CrossEncoder
from mixlm_rerank.training.development import as_taught
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.training.teacher import teacher_scores

POOLS = [
    Pool(f"q{n}", f"query {n}", [f"d{n}", f"d{n + 1}", "d0"][:size], {}) for n, size in ((1, 3), (2, 2), (3, 3), (4, 2))
]
QUERIES_AT_ONCE = 2
TEXTS = {f"d{number}": f"text {number}" for number in range(6)}


class Counting:
    """A teacher that scores by the number in a text, and keeps count; it fails when it is to."""

    def __init__(self, fails_at: int | None = None, value: float | None = None) -> None:
        self.asked: list[str] = []
        self._fails_at, self._value = fails_at, value

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float64]:
        if len(self.asked) == self._fails_at:
            raise RuntimeError("the machine goes down")
        self.asked.append(query)
        if self._value is None:
            return np.array([float(text.split()[1]) for text in texts])
        return self._value + 0.01 * np.arange(len(texts))

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
        return [self.score(query, own) for query, own in zip(queries, texts, strict=True)]


@pytest.fixture(autouse=True)
def few_queries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixlm_rerank.training.teacher.QUERIES_AT_ONCE", QUERIES_AT_ONCE)


def test_teacher_scores_are_computed_once_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "teacher.npy"
    with pytest.raises(RuntimeError):
        teacher_scores(path, Counting(fails_at=QUERIES_AT_ONCE + 1), POOLS, TEXTS, progress=False)
    rest = Counting()
    scores = teacher_scores(path, rest, POOLS, TEXTS, progress=False)
    assert rest.asked == ["query 3", "query 4"]
    np.testing.assert_array_equal(scores, [[1, 2, 0], [2, 3, np.nan], [3, 4, 0], [4, 5, np.nan]])
    again = Counting()
    np.testing.assert_array_equal(teacher_scores(path, again, POOLS, TEXTS, progress=False), scores)
    assert not again.asked


def test_kept_scores_of_another_teacher_or_other_candidates_are_refused(tmp_path: Path) -> None:
    path, judge = tmp_path / "teacher.npy", Counting()
    teacher_scores(path, judge, POOLS, TEXTS, progress=False)
    for pools, texts in ((POOLS[:2], TEXTS), (POOLS, TEXTS | {"d3": "text 9"}), ([*POOLS[:3], POOLS[0]], TEXTS)):
        with pytest.raises(InputError, match="teacher.npy holds values of another set of candidates: delete it"):
            teacher_scores(path, judge, pools, texts, progress=False)
    judge.fingerprint = "trained on"
    with pytest.raises(InputError, match="holds values of another teacher: delete it, or name another file"):
        teacher_scores(path, judge, POOLS, TEXTS, progress=False)
    for kept in ("{}", '{"member": "max-sim"}'):  # by an earlier version: believed once
        path.with_suffix(".json").write_text(kept)
        assert teacher_scores(path, judge, POOLS, TEXTS, progress=False)[0, 0] == 1
        with pytest.raises(InputError, match="holds values of another teacher"):
            teacher_scores(path, Counting(), POOLS, TEXTS, progress=False)


def test_only_the_wanted_scores_are_computed_and_the_rest_later(tmp_path: Path) -> None:
    path = tmp_path / "teacher.npy"
    wanted = np.array([[False, True, False], [False, False, False], [True, False, True], [False, False, True]])
    first = Counting()
    scores = teacher_scores(path, first, POOLS, TEXTS, wanted=wanted, progress=False)
    n = np.nan
    np.testing.assert_array_equal(scores, [[n, 2, n], [n, n, n], [3, n, 0], [n, n, n]])
    assert first.asked == ["query 1", "query 3"]
    whole = teacher_scores(path, Counting(), POOLS, TEXTS, progress=False)
    np.testing.assert_array_equal(whole, [[1, 2, 0], [2, 3, n], [3, 4, 0], [4, 5, n]])


def test_a_teacher_that_is_not_finite_is_refused_by_query_and_document(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"score of document 'd1' for query 'q1' is not finite: use the teacher in float32"
    ):
        teacher_scores(tmp_path / "t.npy", Counting(value=np.nan), POOLS, TEXTS, progress=False)


def test_a_teacher_that_hardly_tells_documents_apart_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"candidates differ by at most 0\.02 log-odds") as told:
        teacher_scores(tmp_path / "flat.npy", Counting(value=3.0), POOLS, TEXTS, progress=False)
    assert len(told) == 1
    with warnings.catch_warnings(action="error"):
        teacher_scores(tmp_path / "t.npy", Counting(), POOLS, TEXTS, progress=False)


def test_a_teacher_whose_head_is_random_or_cannot_score_is_refused(
    checkpoint: Callable[..., Path], cross_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    bare, embedding = str(checkpoint("bert")), str(tmp_path / "embedding")
    SentenceTransformer(bare).save(embedding)
    for source in (bare, embedding):
        with pytest.raises(InputError, match=r"not a trained cross-encoder: classifier.bias, classifier.weight would"):
            CrossEncoder(source)
    CrossEncoder(str(checkpoint("qwen3")))  # answers yes or no by its own head

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=400, decoder_start_token_id=0, **sizes)).save_pretrained(
        tmp_path / "t5"
    )
    AutoTokenizer.from_pretrained(bare).save_pretrained(tmp_path / "t5")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "1", "text": "a dog"}\n')
    for teacher, told in ((tmp_path / "t5", "it is a t5 model ("), (Path(bare), "is not a trained cross-encoder")):
        for model in ([], ["--model", "default"]):
            options = ["--teacher", str(teacher), "--output", str(tmp_path / "run"), *model]
            done = CliRunner().invoke(app, ["distill", str(corpus), *options])
            assert isinstance(done.exception, InputError) and told in str(done.exception)


def test_queries_without_judgments_are_judged_by_the_teachers_order() -> None:
    scores = np.array([[0.5, 2.0, -1.0], [3.0, 4.0, np.nan]], dtype=np.float32)
    found = as_taught(POOLS[:2], TEXTS, scores)
    assert found.qrels == {"q1": {"d2": 10, "d1": 9, "d0": 8}, "q2": {"d3": 10, "d2": 9}}
    assert found.queries == {"q1": "query 1", "q2": "query 2"}
    assert [hit.docid for hit in found.candidates.of_query["q2"]] == POOLS[1].docids
    assert set(found.candidates.texts) == {"d0", "d1", "d2", "d3"}
