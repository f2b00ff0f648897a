"""Calibration: the map is found, the model follows it, and it is said where no threshold helps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlm_rerank import MixLM, Reranker
from mixlm_rerank.data import write_run
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.calibration import Pairs, calibrate, calibrated, pairs_of
from mixlm_rerank.types import ScoredDoc

TEXTS = ["a dog barks at the moon", "bread", "cats and the mail man"]


def drawn(offset: float, queries: int = 200, depth: int = 20) -> Pairs:
    """Relevance with the probability sigmoid(log-odds / 2 - 1), and scores that are off by a number of each query."""
    random = np.random.default_rng(0)
    odds = random.normal(0, 4, (queries, depth))
    relevant = random.random((queries, depth)) < 1 / (1 + np.exp(1 - odds / 2))
    scores = odds + offset * random.normal(0, 1, (queries, 1))
    ranks = (-scores).argsort(axis=1).argsort(axis=1) + 1
    numbers = np.repeat(np.arange(queries), depth)
    return Pairs(scores.ravel(), relevant.ravel().astype(float), numbers, ranks.ravel())


def test_the_map_is_found() -> None:
    found = calibrate(drawn(offset=0))
    assert found.slope == pytest.approx(0.5, abs=0.03) and found.intercept == pytest.approx(-1, abs=0.1)
    everything, by_rank, by_score = found.kept
    assert everything.recall == 1 and by_score.f1 > by_rank.f1 > everything.f1
    assert found.separates and "separate relevant documents from others better" in str(found)
    before, after = found.above_half
    assert before > 2 * after


def test_where_scores_of_queries_do_not_compare_no_threshold_separates() -> None:
    found = calibrate(drawn(offset=20))
    assert not found.separates
    assert "no threshold separates relevant documents from others better than a cut by rank" in str(found)


def test_a_teachers_probabilities_are_targets_too() -> None:
    pairs = drawn(offset=0)
    taught = Pairs(pairs.scores, 1 / (1 + np.exp(-(0.3 * pairs.scores + 0.5))), pairs.queries, pairs.ranks)
    found = calibrate(taught)
    assert (found.slope, found.intercept) == pytest.approx((0.3, 0.5), abs=1e-3)


def test_scores_that_fall_with_relevance_are_refused() -> None:
    pairs = drawn(offset=0)
    with pytest.raises(InputError, match="do not go with relevance"):
        calibrate(Pairs(-pairs.scores, pairs.targets, pairs.queries, pairs.ranks))


def test_documents_that_were_not_scored_do_not_count() -> None:
    ranked = {
        f"q{n}": [ScoredDoc("a", 1.0, 1, 0), ScoredDoc("b", 0.0, 2, 0), ScoredDoc("c", -1e4, 3, 0, missing=True)]
        for n in range(12)
    }
    pairs = pairs_of(ranked, {f"q{n}": {"a": 1.0, "c": 1.0} for n in range(11)})
    assert len(pairs.scores) == 22 and pairs.relevant.sum() == 11


def test_too_few_queries_are_refused() -> None:
    ranked = {f"q{n}": [ScoredDoc("a", 1.0, 1, 0), ScoredDoc("b", 0.0, 2, 0)] for n in range(9)}
    with pytest.raises(InputError, match="9 judged queries with 9 relevant documents among 18"):
        pairs_of(ranked, {qid: {"a": 1.0} for qid in ranked})
    with pytest.raises(InputError, match="0 judged queries"):
        pairs_of(ranked, {"other": {"a": 1.0}})


@pytest.mark.parametrize("residual", ["none", "cosine", "late"])
def test_all_scores_of_the_model_follow(fresh: Callable[..., MixLM], residual: str) -> None:
    model = fresh("bert", residual=residual)
    before, fingerprint = Reranker(model).rank(TEXTS[0], TEXTS), model.fingerprint
    calibrated(model, 0.5, -3.0)
    after = Reranker(model).rank(TEXTS[0], TEXTS)
    assert [doc.docid for doc in after] == [doc.docid for doc in before]
    assert [doc.score for doc in after] == pytest.approx([0.5 * doc.score - 3 for doc in before], abs=1e-4)
    assert model.fingerprint == fingerprint


@pytest.fixture
def work(beir: Path, tmp_path: Path, mixlm: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index by the default model; twelve queries, each a document's beginning, which is relevant to it."""
    monkeypatch.chdir(tmp_path)
    assert mixlm(f"index build {beir} tokens --quiet").code == 0
    texts = ["a dog barks", "cats sleep", "the moon", "bread is baked", "yes", "mail is brought"]
    Path("topics.tsv").write_text("".join(f"q{n}\t{texts[n % 6]} {n}\n" for n in range(12)))
    Path("qrels").write_text("".join(f"q{n} 0 d{n % 6 + 1} 1\n" for n in range(12)))
    hits = {f"q{n}": [ScoredDoc(f"d{d}", 7.0 - d, d, 7.0 - d) for d in range(1, 7)] for n in range(12)}
    write_run("run.trec", hits)
    return tmp_path


COMMAND = "calibrate made --index tokens --topics topics.tsv --run run.trec --quiet"


def test_the_command_saves_a_calibrated_model(work: Path, mixlm: Callable[[str], Any]) -> None:
    done = mixlm(f"{COMMAND} --qrels qrels")
    assert done.code == 0, done
    assert "72 documents of 12 queries, 12 of them relevant" in done.out
    assert Path("made/calibration.txt").read_text() == done.out
    assert Path("made/calibration.png").stat().st_size > 1000
    model = MixLM.from_pretrained("made", device="cpu")
    odds = [doc.score for doc in Reranker(model, "tokens").rerank("the moon 2", ["d3", "d4"])]
    assert odds[0] > 0 > odds[1]


def test_it_fits_the_scores_of_the_token_budget(work: Path, mixlm: Callable[[str], Any]) -> None:
    said = [mixlm(f"{COMMAND} --qrels qrels")]
    for tokens in (8, 1):
        shutil.rmtree("made")
        said.append(mixlm(f"{COMMAND} --qrels qrels --tokens {tokens}"))
    assert said[0].out == said[1].out != said[2].out and not any(one.code for one in said), said


def test_the_page_is_true(work: Path, mixlm: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "thresholds.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```sh\nmixlm-rerank (.*?)\n```", page)
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    Path("run.trec").rename("bm25.trec")
    assert mixlm(command).code == 0
    exec(code, {})
    assert capsys.readouterr().out.endswith("A dog barks at the moon.\n")  # the other one is below the threshold


def test_a_teachers_run_will_do(work: Path, mixlm: Callable[[str], Any]) -> None:
    log_odds = {f"q{n}": [(f"d{n % 6 + 1}", 2.0), (f"d{(n + 1) % 6 + 1}", 1.0), ("d9", -3.0)] for n in range(12)}
    write_run("taught.trec", {qid: [ScoredDoc(d, s, 1, s) for d, s in own] for qid, own in log_odds.items()})
    done = mixlm(f"{COMMAND} --teacher-run taught.trec")
    assert done.code == 0 and "72 documents of 12 queries, 24 of them relevant" in done.out, done


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "give either --qrels"),
        ("--qrels qrels --teacher-run run.trec", "give either --qrels"),
        ("--qrels qrels --relevant 2", "with 0 relevant documents"),
        ("--qrels none", "none"),
    ],
)
def test_bad_input_is_named(work: Path, mixlm: Callable[[str], Any], arguments: str, said: str) -> None:
    done = mixlm(f"{COMMAND} {arguments}")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not Path("made").exists()


def test_a_folder_that_exists_is_refused(work: Path, mixlm: Callable[[str], Any]) -> None:
    Path("made").mkdir()
    assert "made exists" in mixlm(f"{COMMAND} --qrels qrels").err
