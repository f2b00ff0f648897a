"""The page: its numbers, that nothing in it comes from elsewhere or runs, and what is left where parts are missing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval import Comparison, Fidelity
from mixlm_rerank.eval.report import latex_table, markdown_table, write_report
from mixlm_rerank.eval.results import Evaluation, Example, Shown
from mixlm_rerank.systems.protocol import Efficiency

Read = Callable[[Evaluation], Any]
Make = Callable[..., Any]

BETTER = Comparison("MixLM k=4", 0.25, 2, 1, 0.0004, 0.0312)
UNSURE = Comparison("cross-encoder", 0.1, 2, 1, 0.04, 0.06)
FIDELITY = Fidelity(0.91, 0.8, 0.75, 0.5)
FAST = Efficiency(12_345.0, 8.1, 11.25, 1_430_000_000, 1546.0, 600.0)
SLOW = Efficiency(123.45, 810.0, 1125.0)


@pytest.fixture
def two_collections(make_system: Make, make_collection: Make, make_evaluation: Make) -> Evaluation:
    """BM25 .5 and .25; MixLM .75 and .45, ten thousand documents/s; the teacher .6 on the first collection alone."""
    first = make_collection(
        "First",
        [
            make_system("BM25", {"q1": 0.5, "q2": 0.5}),
            make_system(
                "MixLM k=4", {"q1": 1.0, "q2": 0.5}, tokens=4, comparison=BETTER, fidelity=FIDELITY, efficiency=FAST
            ),
            make_system("cross-encoder", {"q1": 0.7, "q2": 0.5}, comparison=UNSURE, efficiency=SLOW, kind="full text"),
            make_system("oracle", {"q1": 1.0, "q2": 0.9}),
        ],
        teacher="cross-encoder",
    )
    second = make_collection(
        "Second",
        [
            make_system("BM25", {"q1": 0.5, "q2": 0.0}),
            make_system("MixLM k=4", {"q1": 0.9, "q2": 0.0}, tokens=4, comparison=BETTER, efficiency=FAST),
            make_system("oracle", {"q1": 1.0, "q2": 0.2}),
        ],
    )
    return make_evaluation(first, second)


def test_the_big_table_has_every_system_with_best_marks_mean_and_speed(read: Read, two_collections: Evaluation) -> None:
    assert read(two_collections).table("nDCG@10 over all judged queries") == {
        "system": ["First, n=2", "Second, n=2", "mean", "documents/s"],
        "BM25": [".500", ".250", ".375", "–"],
        "MixLM k=4": [".750▲", ".450▲", ".600", "12,300"],
        "cross-encoder": [".600△", "–", "–", "–"],  # not on the second collection: its mean would be of another set
        "oracle": [".950", ".600", ".775", "–"],
    }


def test_the_best_are_bold_and_the_oracle_is_not_among_them(read: Read, two_collections: Evaluation) -> None:
    html = read(two_collections).html
    table = html[html.index('id="systems"') : html.index('id="collection-1"')]
    assert re.findall(r"<b>(.*?)</b>", table) == [".750", ".450", ".600"]


def test_a_collection_shows_differences_with_their_tests(read: Read, two_collections: Evaluation) -> None:
    rows = read(two_collections).table("Measures")
    assert rows["system"] == ["nDCG@10", "− BM25", "p, t-test", "p, random.", "wins/losses"]
    assert rows["MixLM k=4"] == [".750", "+.250▲", "<.001", ".031", "2/1"]
    assert rows["cross-encoder"] == [".600", "+.100△", ".040", ".060", "2/1"]
    assert rows["BM25"] == [".500", "–", "–", "–", "–"]


def test_wins_ties_and_losses_of_every_pair(read: Read, two_collections: Evaluation) -> None:
    """On the first collection MixLM has 1.0 and .5, the teacher .7 and .5, BM25 .5 and .5."""
    assert read(two_collections).table("Wins/ties/losses by nDCG@10") == {
        "system": ["BM25", "MixLM k=4", "cross-encoder"],
        "BM25": ["–", "0/1/1", "0/1/1"],
        "MixLM k=4": ["1/1/0", "–", "1/1/0"],
        "cross-encoder": ["1/1/0", "0/1/1", "–"],
    }


def test_every_value_of_every_query_is_written(tmp_path: Path, two_collections: Evaluation) -> None:
    write_report(two_collections, tmp_path)
    lines = (tmp_path / "queries.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["collection\tqid\tsystem\tmeasure\tvalue", "First\tq1\tBM25\tnDCG@10\t0.5"]
    assert len(lines) == 1 + 2 * (4 + 3) and "Second\tq1\tMixLM k=4\tnDCG@10\t0.9" in lines


def test_fidelity_and_efficiency_are_those_of_the_collection(read: Read, two_collections: Evaluation) -> None:
    page = read(two_collections)
    assert page.table("Fidelity to cross-encoder") == {
        "system": ["nDCG@10 ratio", "RBO", "overlap@10", "Kendall's tau", "same first"],
        "MixLM k=4": ["125.0%", ".910", ".800", ".750", "50.0%"],
    }
    efficiency = page.table("Efficiency")
    assert efficiency["MixLM k=4"] == ["12,300", "100×", "8.10", "11.2", "1.5 KB", "10 min", "1.4 GB"]
    assert efficiency["cross-encoder"] == ["123", "1.0×", "810", "1,120", "–", "–", "–"]
    assert "BM25" not in efficiency


def test_several_seeds_are_one_row_with_mean_and_spread(
    read: Read, make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    """Means .5, .6 and .7: .6 with a standard deviation of .1."""
    seeds = [
        make_system(f"MixLM seed {n}", {"q": value}, seed_group="MixLM") for n, value in enumerate((0.5, 0.6, 0.7))
    ]
    page = read(make_evaluation(make_collection("C", [make_system("BM25", {"q": 0.4}), *seeds])))
    assert page.table("nDCG@10 over")["MixLM 3 seeds, ± .100"] == [".600"]
    assert page.table("Several seeds")["MixLM 3 seeds"] == [".600 ± .100"]
    assert page.table("Measures")["MixLM seed 1"][0] == ".600"


def test_markup_in_queries_documents_and_names_is_shown_and_does_nothing(
    read: Read, make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    evil = "<script>alert(1)</script>"
    image = "</script><img src=x onerror=alert(2)>"
    shown = [Shown(f"d{evil}", None, image), Shown("d2", 2, "fine")]
    systems = [
        make_system("BM25", {"q1": 0.5, "q2": 0.4}),
        make_system(
            f"{image} $x^2$",
            {"q1": 0.7, "q2": 0.4},
            tokens=2,
            depth_curve={1: 0.5, 9: 0.7},
            efficiency=FAST,
            description=evil,
        ),
        make_system(
            f"{evil}\x07\n{evil}", {"q1": 0.6, "q2": 0.4}, tokens=4, depth_curve={1: 0.5, 9: 0.6}, efficiency=SLOW
        ),
    ]
    example = Example("q1", evil, f"{image} $x^2$", 0.7, 0.5, shown, shown)
    collection = make_collection('" onload="alert(3)', systems, examples=[example])
    page = read(make_evaluation(collection, command=image, machine={evil: evil}, created=evil))
    counts = Counter(tag for tag, _ in page.tags)
    assert (counts["script"], counts["img"], counts["figure"]) == (1, 0, 3)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(evil) >= 6 and image in page.text


def test_nothing_comes_from_elsewhere(realistic_page: Any) -> None:
    page = realistic_page
    references = [
        value
        for _, found in page.tags
        for key, value in found.items()
        if key in ("src", "href", "srcset", "xlink:href")
    ]
    assert references and all(value and value.startswith("#") for value in references)
    assert not {"link", "iframe", "object", "embed", "img"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\((?!#)", page.html)


def test_the_policy_allows_our_script_alone(realistic_page: Any) -> None:
    page = realistic_page
    policy = next(found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    script = page.html[page.html.index("<script>") + 8 : page.html.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_every_figure_can_be_read_without_seeing_it(realistic_page: Any) -> None:
    page = realistic_page
    pictures = [found for tag, found in page.tags if tag == "svg" and found.get("role") == "img"]
    assert len(pictures) == 1 + 6 * 4  # the frontier; depth, budget and two ways of slicing on each collection
    counts = Counter(tag for tag, _ in page.tags)
    assert counts["figure"] == counts["figcaption"] == len(pictures)
    assert page.html.count("The same as a table") == len(pictures)
    titles = {found.get("id") for tag, found in page.tags if tag == "title"}
    assert {found["aria-labelledby"] for found in pictures} <= titles


def test_ids_are_unique_and_references_lead_somewhere(realistic_page: Any) -> None:
    page = realistic_page
    ids = Counter(found["id"] for _, found in page.tags if "id" in found)
    assert max(ids.values()) == 1
    targets = re.findall(r'href="#([^"]+)"', page.html) + re.findall(r"url\(#([^)]+)\)", page.html)
    assert targets and set(targets) <= ids.keys()


def test_the_page_stays_small_and_the_same(realistic_page: Any, read: Read, realistic: Evaluation) -> None:
    assert len(realistic_page.html.encode()) < 1_000_000
    one = replace(realistic, collections=realistic.collections[:1])
    assert read(one).html == read(one).html


def test_one_collection_one_system_and_nothing_else_make_a_page(
    read: Read, make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    collection = make_collection("Alone", [make_system("BM25", {"q": 0.5})], documents=None)
    page = read(make_evaluation(collection, machine={}, command=""))
    assert [label.split()[0] for label, _ in page.tables] == ["nDCG@10", "Measures,"]
    assert page.table("Measures") == {"system": ["nDCG@10"], "BM25": [".500"]}
    assert not {"figure", "pre"} & {tag for tag, _ in page.tags}
    assert "None" not in page.text and "1 judged query ·" in page.text
    assert not re.search("Fidelity|Documents/s|t-test|oracle, the ceiling|Examples|In short", page.text)


def test_no_part_is_shown_empty(read: Read, realistic: Evaluation) -> None:
    """Speeds, teacher, seeds, curves, slices, tests: each may be missing on its own."""
    whole = realistic.collections[0]
    text = read(replace(realistic, collections=[whole])).text
    for nothing, gone in (
        ({"efficiency": None}, "Efficiency|Quality against speed|documents/s"),
        ({"fidelity": None}, "Fidelity"),
        ({"seed_group": None}, "Several seeds"),
        ({"depth_curve": {}}, r"Depth\."),
        ({"tokens": None}, "Token budget"),
        ({"slices": []}, "By query length"),
        ({"comparison": None}, "t-test|Against BM25"),
    ):
        assert re.search(gone, text)
        systems = [replace(system, **nothing) for system in whole.systems]  # type: ignore[arg-type]
        page = read(replace(realistic, collections=[replace(whole, systems=systems)]))
        assert not re.search(gone, page.text), nothing
        assert all(len(rows) > 1 and len(rows[0]) > 1 for _, rows in page.tables)


def test_the_big_table_is_written_for_readme_and_paper_too(tmp_path: Path, two_collections: Evaluation) -> None:
    assert write_report(two_collections, tmp_path) == tmp_path / "report.html"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queries.tsv", "report.html", "tables.md", "tables.tex"]
    answers, table, rest = (
        (tmp_path / "tables.md").read_text(encoding="utf-8").partition(markdown_table(two_collections))
    )
    assert answers.startswith("**Worth switching?** ") and table and not rest
    assert (tmp_path / "tables.tex").read_text(encoding="utf-8") == latex_table(two_collections)


def test_an_evaluation_without_systems_and_a_folder_that_is_a_file_are_refused(
    tmp_path: Path, two_collections: Evaluation
) -> None:
    with pytest.raises(InputError, match="nothing to report in this evaluation"):
        write_report(replace(two_collections, collections=[]), tmp_path)
    nothing = replace(two_collections.collections[0], systems=[])
    with pytest.raises(InputError, match="the collection First has no systems"):
        write_report(replace(two_collections, collections=[nothing]), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        write_report(two_collections, tmp_path / "file")
