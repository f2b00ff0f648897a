"""Entrants take turns; slow ones take part in fewer rounds; medians and quartiles. By a clock that they move."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.eval.bench import machine
from mixlm_rerank.eval.bench.kit import Entrant, fastest, interleaved, spread
from mixlm_rerank.eval.bench.machine import shares
from mixlm_rerank.scoring import SharedPrefixScorer


class Clock:
    """Time that passes only where somebody works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns: list[str] = []

    def __call__(self) -> float:
        return self.now

    def entrant(self, name: str, seconds: float | list[float], warm_up: float = 0.5) -> Entrant:
        def work(number: int) -> None:
            self.turns.append(f"{name}{number}")
            self.now += seconds[number] if isinstance(seconds, list) else seconds

        def warm() -> None:
            self.turns.append(f"{name} warm")
            self.now += warm_up

        return Entrant(name, [partial(work, number) for number in range(9)], warm)

    def rest(self) -> None:
        self.now += 7.0


def test_all_are_warm_before_the_first_round_and_turns_go_there_and_back() -> None:
    clock = Clock()
    entrants = [clock.entrant(name, seconds) for name, seconds in (("a", [3.0, 1.0, 2.0]), ("b", 10.0), ("c", 0.25))]
    taken = interleaved(entrants, rounds=3, seconds=1e9, clock=clock, rest=clock.rest)
    assert clock.turns == ["a warm", "b warm", "c warm", "a0", "b0", "c0", "c1", "b1", "a1", "a2", "b2", "c2"]
    assert taken == {"a": [3.0, 1.0, 2.0], "b": [10.0] * 3, "c": [0.25] * 3}  # without warm-up and rest


def test_what_is_slow_takes_part_in_fewer_rounds_spread_over_all_but_in_one_at_least() -> None:
    clock = Clock()
    entrants = [clock.entrant("quick", 1.0), clock.entrant("slow", 10.0), clock.entrant("slower", 999.0)]
    taken = interleaved(entrants, rounds=9, seconds=30.0, clock=clock, rest=clock.rest)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"quick": 9, "slow": 3, "slower": 1}
    assert [turn for turn in clock.turns if turn.startswith("slow")] == [
        *("slow warm", "slower warm", "slow0", "slower0", "slow3", "slow6")
    ]


def test_it_tells_whose_turn_it_is() -> None:
    clock, told = Clock(), list[str]()
    interleaved(
        [clock.entrant("a", 1.0), clock.entrant("b", 1.0)], rounds=1, seconds=9.0, clock=clock, told=told.append
    )
    assert told == ["a", "b", "a", "b"]


def test_the_fastest_is_that_with_the_best_round() -> None:
    clock = Clock()
    options = [clock.entrant("steady", [2.0, 2.0]), clock.entrant("disturbed once", [9.0, 1.5])]
    assert fastest(options, clock=clock) == "disturbed once"


def test_an_entrant_with_one_run_repeats_it_and_warms_up_with_it() -> None:
    done: list[str] = []
    interleaved([Entrant("a", [lambda: done.append("a")])], rounds=3)
    assert done == ["a"] * 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0], (4.0, 4.0, 4.0)),
        ([1.0, 3.0], (1.5, 2.0, 2.5)),
        ([100.0, 1.0, 2.0, 3.0, 4.0], (2.0, 3.0, 4.0)),
    ],
)
def test_median_and_quartiles(values: list[float], expected: tuple[float, ...]) -> None:
    assert tuple(spread(values).values()) == expected


def test_shares_of_a_rerank_add_up(tiny: Callable[..., MixLM]) -> None:
    """The clock moves by one at each look: a call costs one inside, and what lies between calls counts as the rest."""
    model, tokens = tiny("bert", residual="late"), torch.randn(3, 2, 64)
    ticks = iter(range(1000))
    found = shares(model, [lambda: SharedPrefixScorer(model).score("a dog", tokens)], lambda: float(next(ticks)))
    # started, ranker in and out, query in and out, ended: 5 ticks, of which one each inside
    assert found is not None and found == pytest.approx({"ranker": 1 / 5, "query": 1 / 5, "rest": 3 / 5})
    assert "forward_packed" not in vars(model.ranker) and "query_states" not in vars(model.item_encoder)


def test_no_shares_where_the_packed_pass_is_not_what_runs(tiny: Callable[..., MixLM]) -> None:
    assert shares(tiny("bert"), [lambda: None]) is None


def test_matrix_rate_is_that_of_the_best_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product takes a second: the largest matrix is the fastest."""

    class Second:
        median = 1.0

        def blocked_autorange(self, min_run_time: float) -> Second:
            return self

    monkeypatch.setattr(machine, "Timer", lambda *args, **kwargs: Second())
    assert machine.matrix_rate(sizes=(4, 8, 2)) == 2 * 8**3


def test_matrix_rate_of_this_machine() -> None:
    assert 0 < machine.matrix_rate(sizes=(16,)) < 1e15
