"""The figures: which points are on the frontier, labels that stay apart, budgets that belong together."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlm_rerank.eval.report.frontier import LINE, Point, frontier_picture, pareto, place_labels
from mixlm_rerank.eval.report.pictures import budget_picture, depth_picture
from mixlm_rerank.eval.report.svg import inline_svg, new_axes, tip
from mixlm_rerank.eval.results import Evaluation
from mixlm_rerank.eval.standings import cast, standings
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]
SVG = "{http://www.w3.org/2000/svg}"
points = st.lists(
    st.builds(
        Point, st.just("p"), st.just("other"), st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([1.0, 10.0, 99.0])
    ),
    min_size=1,
    max_size=6,
)


@given(points)
def test_nothing_beats_the_frontier_and_it_beats_or_equals_the_rest(found: list[Point]) -> None:
    front = pareto(found)
    for point in found:
        assert not any(point.quality > other.quality and point.speed >= other.speed for other in front)
        assert any(other.quality >= point.quality and other.speed >= point.speed for other in front)
    assert [point.speed for point in front] == sorted((point.speed for point in front), reverse=True)


def on_another(boxes: list[tuple[float, float, float]]) -> int:
    """How many labels lie on another one."""
    pairs = list(itertools.combinations(boxes, 2))
    return sum(a[0] < b[1] and b[0] < a[1] and abs(a[2] - b[2]) < LINE - 1e-6 for a, b in pairs)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_labels_stay_apart_and_inside(seed: int) -> None:
    """Fifteen points anywhere: no label lies on another one."""
    rng = random.Random(seed)
    _, axes = new_axes(860, 470)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    labels = [(rng.uniform(0.05, 0.8), rng.uniform(0.1, 0.9), f"MixLM, a name {n}", False) for n in range(15)]
    boxes = place_labels(axes, labels)
    assert len(boxes) == 15 and on_another(boxes) == 0
    for left, right, middle in boxes:
        assert 0 < left < right < 860 and 0 < middle < 470


def test_labels_of_systems_at_the_same_place_are_all_legible() -> None:
    _, axes = new_axes(860, 470)
    boxes = place_labels(axes, [(0.5, 0.5, f"system {n}", False) for n in range(6)])
    assert len(boxes) == 6 and on_another(boxes) == 0


def test_the_realistic_frontier_has_no_label_on_another(realistic: Evaluation) -> None:
    picture = frontier_picture(standings(realistic))
    assert picture is not None
    texts = [text.text for text in ElementTree.fromstring(picture.svg).iter(f"{SVG}text")]
    assert {"cosine", "MixLM k=4", "BM25, first stage", "1,000"} <= set(texts)


def test_an_svg_says_what_it_is_and_what_its_points_are() -> None:
    figure, axes = new_axes(300, 200)
    axes.plot([1, 2], [1, 2], gid=tip("the line"))
    axes.text(1, 1, "a <b> & 你好 $x$", parse_math=False)
    text = inline_svg(figure, "mine", "A <title>")
    assert text == inline_svg(figure, "mine", "A <title>")
    root = ElementTree.fromstring(text)
    assert (root.get("role"), root.get("aria-labelledby"), root.get("viewBox")) == ("img", "mine-title", "0 0 300 200")
    assert [title.text for title in root.iter(f"{SVG}title")] == ["A <title>", "the line"]
    assert "a <b> & 你好 $x$" in [found.text for found in root.iter(f"{SVG}text")]
    assert not any("line" in (found.get("id") or "") for found in root.iter())
    assert not {f"{SVG}style", f"{SVG}metadata", f"{SVG}image", f"{SVG}script"} & {found.tag for found in root.iter()}


def test_budgets_of_one_model_are_one_curve_and_others_are_levels(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    systems = [
        make_system("BM25", {"q": 0.3}),
        *(make_system(f"MixLM k={k}", {"q": 0.4 + k / 100}, tokens=k) for k in (1, 2, 4)),
        *(make_system(f"small MixLM k={k}", {"q": 0.35 + k / 100}, tokens=k) for k in (1, 4)),
        make_system("cross-encoder", {"q": 0.6}, kind="full text"),
    ]
    table = standings(make_evaluation(make_collection("C", systems)))
    picture = budget_picture(table, 0, cast(table), "b")
    assert picture is not None
    tips = [title.text for title in ElementTree.fromstring(picture.svg).iter(f"{SVG}title")]
    assert [tip for tip in tips[1:] if ":" not in str(tip)] == ["MixLM", "small MixLM"]
    assert [tip for tip in tips if str(tip).startswith("MixLM: ")] == ["MixLM: .410", "MixLM: .420", "MixLM: .440"]
    shown = {line.name: [cell.text for cell in line.cells] for line in picture.data.lines}
    assert shown["MixLM k=4"] == ["4", ".440"] and shown["cross-encoder"] == ["–", ".600"]


@pytest.mark.parametrize("name", ["frontier", "depth", "budget"])
def test_one_point_is_no_picture(name: str, make_system: Make, make_collection: Make, make_evaluation: Make) -> None:
    lonely = make_system("M", {"q": 0.5}, tokens=4, depth_curve={10: 0.5}, efficiency=Efficiency(100.0, 1, 1))
    table = standings(make_evaluation(make_collection("C", [make_system("BM25", {"q": 0.3}), lonely])))
    draw = {
        "frontier": lambda: frontier_picture(table),
        "depth": lambda: depth_picture(table, 0, cast(table), "d"),
        "budget": lambda: budget_picture(table, 0, cast(table), "b"),
    }
    assert draw[name]() is None


def test_the_systems_in_colour_are_the_best_of_their_kind_and_the_teacher(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    systems = [
        make_system("BM25", {"q": 0.3}),
        make_system("MixLM k=1", {"q": 0.4}, tokens=1),
        make_system("MixLM k=8", {"q": 0.5}, tokens=8),
        make_system("bigger", {"q": 0.9}, kind="full text"),
        make_system("teacher", {"q": 0.6}, kind="full text"),
        make_system("oracle", {"q": 1.0}),
    ]
    table = standings(make_evaluation(make_collection("C", systems, teacher="teacher")))
    assert [row.name for row in cast(table)] == ["MixLM k=8", "teacher", "BM25"]


def heights(svg: str) -> dict[str, float]:
    """System -> how high its point of the frontier stands, in pixels from the top."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        title, marks = group.find(f"{SVG}title"), list(group.iter(f"{SVG}use"))
        if title is not None and marks:
            found[str(title.text).split(":")[0]] = float(marks[0].get("y", ""))
    return found


def test_an_outlier_does_not_flatten_the_frontier(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    """.60 and .65 are as far apart with a broken system as without it; it stands at the foot, with its value."""

    def drawn(**values: float) -> str:
        systems = [make_system("first", {"q": 0.55}, kind="first stage")] + [
            make_system(name, {"q": value}, efficiency=Efficiency(100.0 + 50 * number, 1, 1))
            for number, (name, value) in enumerate(values.items())
        ]
        picture = frontier_picture(standings(make_evaluation(make_collection("C", systems))))
        assert picture is not None
        return picture.svg

    others = {"low": 0.6, "middle": 0.62, "high": 0.65}
    plain, broken = heights(drawn(**others)), heights(drawn(**others, broken=0.05))
    assert {name: broken[name] for name in others} == pytest.approx({name: plain[name] for name in others}, abs=0.2)
    assert plain["low"] - plain["high"] > 100
    assert broken["broken"] > broken["low"]
    texts = [text.text for text in ElementTree.fromstring(drawn(**others, broken=0.05)).iter(f"{SVG}text")]
    assert "broken: .050" in texts and "low" in texts


def test_outliers_of_the_small_pictures_are_named(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    systems = [make_system("BM25", {"q": 0.55})] + [
        make_system(name, {"q": value}, tokens=tokens, depth_curve={10: value - 0.1, 100: value})
        for name, value, tokens in (("M k=1", 0.6, 1), ("M k=2", 0.62, 2), ("M k=4", 0.65, 4), ("broken k=8", 0.05, 8))
    ]
    table = standings(make_evaluation(make_collection("C", systems)))
    for picture in (depth_picture(table, 0, cast(table), "d"), budget_picture(table, 0, cast(table), "b")):
        assert picture is not None
        assert picture.caption.endswith(" Too low for the picture: broken k=8 (.050).")
        ticks = [str(text.text) for text in ElementTree.fromstring(picture.svg).iter(f"{SVG}text")]
        assert min(float(tick) for tick in ticks if tick.startswith(".")) >= 0.4
