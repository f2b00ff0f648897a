"""Is it worth switching, or is something cheaper as good? What is said, and what is not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from mixlm_rerank.eval import Comparison
from mixlm_rerank.eval.report.findings import answers, difference
from mixlm_rerank.eval.results import Evaluation
from mixlm_rerank.eval.standings import standings
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]
Values = dict[str, float]
Answered = Callable[..., dict[str, str]]


def drawn(count: int, mean: float, spread: float, seed: int) -> Values:
    draw = random.Random(seed)
    return {f"q{number}": mean + draw.uniform(-spread, spread) for number in range(count)}


def shifted(values: Values, by: float, spread: float = 0.0, seed: int = 9) -> Values:
    noise = drawn(len(values), by, spread, seed)
    return {qid: value + noise[qid] for qid, value in values.items()}


@pytest.fixture
def answered(make_system: Make, make_collection: Make, make_evaluation: Make) -> Answered:
    """``answered(BM25={...}, MixLM=({...}, speed), ...)``: head -> answer; the first is the baseline."""

    def given(**systems: Any) -> dict[str, str]:
        pairs = {name: own if isinstance(own, tuple) else (own, None) for name, own in systems.items()}
        made = [
            make_system(name, values, efficiency=speed and Efficiency(speed, 1.0, 1.0))
            for name, (values, speed) in pairs.items()
        ]
        found: Evaluation = make_evaluation(make_collection("C", made))
        return {finding.head: finding.text for finding in answers(standings(found))}

    return given


BM25 = drawn(200, 0.5, 0.2, seed=1)


def test_a_gain_is_told_with_its_interval_and_its_losses(answered: Answered) -> None:
    """.1 more on 150 queries, .1 less on 30, the same on 20: .06 on average."""
    gains = [0.1] * 150 + [-0.1] * 30 + [0.0] * 20
    better = {qid: value + gain for (qid, value), gain in zip(BM25.items(), gains, strict=True)}
    text = answered(BM25=BM25, MixLM=better)["Worth switching?"]
    assert text.startswith("Yes. MixLM against BM25: nDCG@10 +.060, 95% interval +.0")
    assert text.endswith(
        " Better on 150 (by .100 on average), worse on 30 (by .100 on average), the same on 20 of 200 queries."
    )


def test_the_best_of_several_has_a_wider_interval(answered: Answered) -> None:
    """Some system is above BM25 by chance if only there are enough of them."""
    better = shifted(BM25, 0.02, 0.13)
    alone = answered(BM25=BM25, MixLM=better)["Worth switching?"]
    assert alone.startswith("Yes. MixLM against BM25: ") and "corrected" not in alone
    others = {f"seed {seed}": drawn(200, 0.45, 0.2, seed=seed) for seed in range(2, 12)}
    chosen = answered(BM25=BM25, MixLM=better, **others)["Worth switching?"]
    assert chosen.startswith("Not shown. MixLM against BM25: ")
    assert " (corrected for the choice among 11), which may be chance." in chosen


def test_what_may_be_chance_is_not_called_a_gain(answered: Answered) -> None:
    turns = {qid: value + 0.01 + (0.3 if number % 2 else -0.3) for number, (qid, value) in enumerate(BM25.items())}
    text = answered(BM25=BM25, MixLM=turns)["Worth switching?"]
    assert text.startswith("Not shown. MixLM against BM25: nDCG@10 +.010, 95% interval −.0")
    assert ", which may be chance. Better on " in text


def test_what_no_paired_test_finds_is_not_called_a_gain(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    """Of six queries the interval is rough: the tests decide."""
    first = drawn(6, 0.3, 0.1, seed=1)
    unsure, sure = Comparison("MixLM", 0.2, 6, 0, 0.2, 0.3), Comparison("MixLM", 0.2, 6, 0, 0.01, 0.03)
    found = []
    for comparison in (unsure, sure):
        systems = [make_system("BM25", first), make_system("MixLM", shifted(first, 0.2, 0.1), comparison=comparison)]
        found.append(answers(standings(make_evaluation(make_collection("C", systems))))[0].text)
    assert (
        found[0].startswith("Not shown. MixLM against BM25") and "but no paired test finds it significant." in found[0]
    )
    assert found[1].startswith("Yes. MixLM against BM25")


def test_what_is_worse_is_told_as_clearly(answered: Answered) -> None:
    text = answered(BM25=BM25, MixLM=shifted(BM25, -0.1, 0.1))["Worth switching?"]
    assert text.startswith("No. MixLM against BM25: nDCG@10 −.")


def test_the_fastest_that_is_as_good_is_named(answered: Answered) -> None:
    best = shifted(BM25, 0.1, 0.1)
    found = answered(
        BM25=BM25,
        teacher=(best, 100.0),
        MixLM=(shifted(best, -0.001, 0.01), 1000.0),
        cosine=(shifted(best, -0.05, 0.01), 9000.0),
    )
    assert found["Worth switching?"].startswith("Yes. teacher against BM25")
    assert found["As good and cheaper?"].startswith("Yes. MixLM is as good as teacher (−.00")
    assert found["As good and cheaper?"].endswith(", 200 queries) and ranks 10× as many documents a second.")


def test_too_few_queries_to_tell_are_called_so(answered: Answered) -> None:
    """.1 up or down by turns, .01 less on average: on 14 queries nobody could tell."""
    few = drawn(14, 0.5, 0.2, seed=2)
    best = shifted(few, 0.2, 0.05)
    cosine = {qid: value - 0.01 + (0.1 if number % 2 else -0.1) for number, (qid, value) in enumerate(best.items())}
    text = answered(BM25=few, MixLM=(best, 100.0), cosine=(cosine, 400.0))["As good and cheaper?"]
    assert text.startswith("Perhaps. cosine is not shown to be worse than MixLM (−.010, 95% interval −.0")
    assert "ranks 4.0× as many documents a second. With power .8 these 14 queries show only differences of .08" in text


def test_what_is_faster_and_worse_is_no_answer(answered: Answered) -> None:
    best = shifted(BM25, 0.1, 0.1)
    text = answered(BM25=BM25, MixLM=(best, 100.0), cosine=(shifted(best, -0.05, 0.01), 400.0))["As good and cheaper?"]
    assert text.startswith("No. The best of what is faster, cosine, lacks nDCG@10 (−.0")


def test_a_little_faster_is_not_cheaper(answered: Answered) -> None:
    best = shifted(BM25, 0.1)
    assert "As good and cheaper?" not in answered(BM25=BM25, a=(best, 100.0), b=(shifted(best, -0.001), 110.0))


@pytest.mark.parametrize("count", [1, 4])
def test_a_handful_of_queries_is_no_answer(answered: Answered, count: int) -> None:
    few = drawn(count, 0.5, 0.2, seed=3)
    text = answered(BM25=few, MixLM=shifted(few, 0.3))["Worth switching?"]
    assert text == "Too few queries to tell MixLM from BM25: at least 5 of each collection are needed."


def test_nothing_to_compare_is_no_answer(answered: Answered) -> None:
    assert answered(BM25=BM25) == {} == answered(BM25=BM25, oracle=shifted(BM25, 0.2))


def test_collections_count_alike_and_seeds_are_one_system(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    """.2 better on ten queries, .1 worse on a hundred: +.05, not −.073; seeds of .1 and .3 are .2."""

    def made(name: str, count: int, *gains: float) -> Any:
        first = drawn(count, 0.5, 0.1, seed=count)
        seeds = [make_system(f"s{n}", shifted(first, gain), seed_group="S") for n, gain in enumerate(gains)]
        return make_collection(name, [make_system("BM25", first), *seeds])

    table = standings(make_evaluation(made("small", 10, 0.1, 0.3), made("large", 100, -0.1, -0.1)))
    s, bm25 = table.row("S"), table.row("BM25")
    assert s is not None and bm25 is not None
    found = difference(table, s, bm25)
    assert found is not None
    assert found.mean == pytest.approx(0.05)
    assert (found.queries, len(found.won), len(found.lost)) == (110, 10, 100)
    assert answers(table)[0].text.endswith(
        "worse on 100 (by .100 on average), the same on 0 of 110 queries. Lower on large (−.100)."
    )


def test_other_queries_are_not_compared(make_system: Make, make_collection: Make, make_evaluation: Make) -> None:
    other = {f"{qid}x": value for qid, value in BM25.items()}
    systems = [make_system("BM25", BM25), make_system("MixLM", other)]
    table = standings(make_evaluation(make_collection("C", systems)))
    assert difference(table, table.rows[1], table.rows[0]) is None
