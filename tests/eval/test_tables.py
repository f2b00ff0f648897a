"""The big table as Markdown and LaTeX, to the letter; names that mean something to either are escaped."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import numbers
from mixlm_rerank.eval import Comparison
from mixlm_rerank.eval.report import latex_table, markdown_table
from mixlm_rerank.eval.results import Evaluation
from mixlm_rerank.systems.protocol import Efficiency

Make = Callable[..., Any]
NASTY = r"50% of {R&D}_x #1 ~ ^2 <b> \foo $5 | *y*"


@pytest.fixture
def evaluation(make_system: Make, make_collection: Make, make_evaluation: Make) -> Evaluation:
    def compared(difference: float, p_randomisation: float) -> Comparison:
        return Comparison("", difference, 1, 1, 0.01, p_randomisation)

    fast = Efficiency(1000.0, 1.0, 1.0)
    one = make_collection(
        "A_1",
        [
            make_system("BM25", {"q": 0.5}),
            make_system(NASTY, {"q": 0.75}, comparison=compared(0.25, 0.01), efficiency=fast),
        ],
    )
    two = make_collection(
        "B",
        [
            make_system("BM25", {"q": 0.5}),
            make_system(NASTY, {"q": 0.25}, comparison=compared(-0.25, 0.2), efficiency=fast),
        ],
    )
    return make_evaluation(one, two)


def test_markdown_to_the_letter(evaluation: Evaluation) -> None:
    assert markdown_table(evaluation).splitlines() == [
        "| system | A\\_1, n=1 | B, n=1 | mean | documents/s |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| BM25 | .500 | **.500** | **.500** | – |",
        r"| 50% of {R\&D}\_x #1 \~ ^2 \<b\> \\foo $5 \| \*y\* | **.750**▲ | .250▽ | **.500** | 1,000 |",
        "",
        "nDCG@10 over all judged queries (n); best in bold (the oracle apart). Mean: over collections, not tested. "
        "Against BM25: ▲ significantly better; ▽ worse by one of the two tests only (paired t-test and randomisation "
        "test, p \\< .05 after Holm's correction).",
    ]


def test_latex_to_the_letter(evaluation: Evaluation) -> None:
    name = (
        r"50\% of \{R\&D\}\_x \#1 \textasciitilde{} \textasciicircum{}2 \textless{}b\textgreater{} "
        r"\textbackslash{}foo \$5 \textbar{} *y*"
    )
    lines = latex_table(evaluation).splitlines()
    assert lines[:3] == [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    assert lines[4:] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"system & A\_1, n=1 & B, n=1 & mean & documents/s \\",
        r"\midrule",
        r"BM25 & .500 & \textbf{.500} & \textbf{.500} & – \\",
        name + r" & \textbf{.750}$^{\Uparrow}$ & .250$^{\downarrow}$ & \textbf{.500} & 1,000 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    assert r"$^{\Uparrow}$ significantly better" in lines[3] and r"p \textless{} .05" in lines[3]


def test_latex_is_balanced_and_has_no_stray_special_character(realistic: Evaluation) -> None:
    text = latex_table(realistic).split("\n", 1)[1]
    bare = re.sub(r"\\[\\{}%&#$_]", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert not re.search("[#%▲▼△▽±−]", bare)
    rows = re.findall(r"^.* \\\\$", text, re.MULTILINE)
    assert len(rows) == 13 * len(realistic.measures)
    assert {row.replace(r"\&", "").count("&") for row in rows} == {8}


def test_every_measure_has_its_table_and_marks_are_of_the_main_one(realistic: Evaluation) -> None:
    tables = markdown_table(realistic).split("\n| system")
    assert [re.findall(r"^(\S+) over all judged", table, re.MULTILINE) for table in tables] == [
        [name] for name in realistic.measures
    ]
    assert re.search("[△▽]", tables[0]) and not re.search("[▲△▽▼]", "".join(tables[1:]))
    for measure, table in zip(realistic.measures, tables, strict=True):
        values = [system.measures[measure] for system in realistic.collections[0].systems if system.name == "MixLM k=8"]
        (row,) = re.findall(r"^\| MixLM k=8 \| \**([\d.]+)", table, re.MULTILINE)
        assert row == numbers.measure(values[0])


def test_an_interval_stands_behind_each_mean(make_system: Make, make_collection: Make, make_evaluation: Make) -> None:
    """Of all values alike the interval is the mean; of four queries there is none."""
    many, few = ({f"q{n}": 0.5 for n in range(count)} for count in (5, 4))
    collections = [make_collection("A", [make_system("BM25", many)]), make_collection("B", [make_system("BM25", few)])]
    found = make_evaluation(*collections)
    assert "| BM25 | **.500** (.500–.500) | **.500** | **.500** |" in markdown_table(found)
    assert "Intervals: 95%, bootstrap over queries." in markdown_table(found)
    assert r"\textbf{.500} {\scriptsize (.500–.500)}" in latex_table(found)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(evaluation: Evaluation, tmp_path: Path) -> None:
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"
    (tmp_path / "table.tex").write_text(document % latex_table(evaluation), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


def test_seeds_show_the_spread_of_their_means(make_system: Make, make_collection: Make, make_evaluation: Make) -> None:
    """Means over both collections: .5 and .6, so .55 with a standard deviation of .0707."""
    collections = [
        make_collection(name, [make_system(f"s{n}", {"q": 0.4 + n / 10 + gain}, seed_group="S") for n in range(2)])
        for name, gain in (("A", 0.0), ("B", 0.2))
    ]
    evaluation = make_evaluation(*collections)
    assert "| S (2 seeds, ± .071) | **.450** | **.650** | **.550** |" in markdown_table(evaluation)
    assert r"S {\scriptsize (2 seeds, $\pm$ .071)} & \textbf{.450}" in latex_table(evaluation)


def test_no_significant_difference_is_called_so(
    make_system: Make, make_collection: Make, make_evaluation: Make
) -> None:
    unsure = Comparison("a", 0.1, 1, 0, 0.2, 0.3)
    systems = [make_system("BM25", {"q": 0.5}), make_system("a", {"q": 0.6}, comparison=unsure)]
    assert "No difference to BM25 is significant" in markdown_table(make_evaluation(make_collection("C", systems)))
