"""``mixlm-rerank bench``: what it writes, that it goes on where it stopped, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.eval.bench import grid, product
from mixlm_rerank.eval.bench.curves import Curves

pytestmark = pytest.mark.processes

Command = Callable[[str], Any]
GRID = "bench grid --output all/grid --model model --rounds 2 --seconds 5 --quiet"  # as in bench all --quick
GROWTH = "bench growth --output out --model model --largest 60 --rounds 2 --seconds 5 --quiet"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """What is not an option of the commands, and large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "DOCUMENTS", 200)
        patch.setitem(product.matrix_rate.__kwdefaults__, "sizes", (64,))
        yield


@pytest.fixture(scope="module")
def measured(
    small: None, checkpoint: Callable[..., Path], mixlm: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A folder with ``model`` and what ``bench all --quick`` left in ``all``; and what it said."""
    folder = tmp_path_factory.mktemp("bench")
    # small weights, so that layers pass a rounding error on and do not magnify it
    backbone, lengths = checkpoint("bert", initializer_range=0.1), {"max_query_tokens": 64, "max_document_tokens": 40}
    model = MixLM.from_backbones(backbone, backbone, residual="late", **lengths)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.readout.score.weight, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = mixlm("bench all --output all --model model --quick")
    return folder, done


@pytest.fixture
def place(measured: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(measured[0], tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return found


def test_all_writes_results_tables_and_plots(place: Path, measured: tuple[Path, Any]) -> None:
    done = measured[1]
    assert done.code == 0, done.err
    plots = {
        "grid": ["latency.png", "speedup.png"],
        "decoder": ["decoder.png"],
        "growth": ["candidates.png", "corpus.png", "document.png", "prefix.png"],
        "build": ["build.png"],
        "store": ["fetch.png"],
    }
    for name, pictures in plots.items():
        held = sorted(path.name for path in Path("all", name).iterdir())
        assert held == sorted(["cells.jsonl", "results.json", "results.md", *pictures])
        assert all(Path("all", name, picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
        assert Path("all", name, "results.md").read_text() in done.out
        assert results(f"all/{name}")["machine"]["torch"]
    assert done.err.count(", about ") >= 3 and "100%" in done.err  # estimates, progress


def test_the_grid_has_all_contenders_in_each_cell_after_sameness(place: Path) -> None:
    found = results("all/grid")
    print("SAMENESS", found["sameness"])
    assert found["sameness"]["mixlm"] < 1e-4 and found["sameness"]["onnx"]["difference"] < 1e-3
    assert found["sameness"]["onnx"]["correlation"] > 0.8
    assert found["sameness"]["int8"]["difference"] > 0 and found["sameness"]["int8"]["kendall_tau"] > 0.3
    assert [cell["name"] for cell in found["cells"]] == [
        f"{length} tokens, {count} candidates, query of 16" for length in (32, 64) for count in (5, 10)
    ]
    for cell in found["cells"]:
        rows = {row["name"]: row for row in cell["contenders"]}
        assert list(rows) == [
            *("cross-encoder, defaults", "cross-encoder, best", "cross-encoder, ONNX int8", "MixLM k=4, reference"),
            *("MixLM k=1", "MixLM k=2", "MixLM k=4", "MixLM k=1, int8", "MixLM k=2, int8", "MixLM k=4, int8"),
            *("MixLM k=1, ONNX", "MixLM k=2, ONNX", "MixLM k=4, ONNX"),
        ]
        assert rows["cross-encoder, best"]["speedup"] == 1.0
        assert all(row["rounds"] == 2 for row in rows.values())
        for row in rows.values():
            assert row["realised"] == pytest.approx(row["speedup"] / row["flop_ratio"])
            assert (row["outside"] is not None) == (row["kind"] in ("MixLM", "MixLM int8"))
        # read by hand: [CLS] and [SEP] around the query; k tokens and the score token for each candidate
        long = results("all/grid")["cells"][-1]
        ratios = [row["flop_ratio"] for row in long["contenders"]]
        assert ratios[0] == ratios[1] == ratios[2] == 1.0 and ratios[4] > ratios[5] > ratios[6] > 1


def test_the_same_grid_again_measures_nothing_and_a_larger_one_only_what_is_new(place: Path, mixlm: Command) -> None:
    before = Path("all/grid/cells.jsonl").read_bytes()
    said = mixlm(f"{GRID} --lengths 32,64 --candidates 5,10")
    assert said.code == 0, said.err
    assert Path("all/grid/cells.jsonl").read_bytes() == before
    said = mixlm(f"{GRID} --lengths 32 --candidates 7")
    assert said.code == 0, said.err
    after = Path("all/grid/cells.jsonl").read_bytes()
    assert after.startswith(before)
    new = [json.loads(line)["cell"] for line in after[len(before) :].splitlines()]
    cells = [cell for cell in new if "candidates" in cell]
    assert cells == ["32 tokens, 7 candidates, query of 16"] and not [cell for cell in new if "settings" in cell]
    assert [cell["candidates"] for cell in results("all/grid")["cells"]] == [5, 7, 10, 5, 10]


def test_the_decoder_stands_beside_the_paper(place: Path) -> None:
    found = results("all/decoder")
    assert [way["name"] for way in found["ways"]] == [
        *("full text", "full text, prefix once", "MixLM, without prefix sharing", "MixLM")
    ]
    assert found["sameness"] < 1e-3
    gains = {gain["name"]: gain for gain in found["gains"]}
    assert gains["MixLM over full text, both shared"]["paper"] == pytest.approx(75.9, abs=0.05)
    assert gains["prefix sharing, MixLM"]["paper"] == pytest.approx(7.3, abs=0.05)
    assert all(gain["flop_ratio"] > 1 for gain in gains.values())


def test_growth_has_its_curves_and_memory_and_leaves_no_index(place: Path) -> None:
    found = results("all/growth")
    assert [point["x"] for point in found["candidates"]["points"]] == [10, 30, 100]
    assert [point["x"] for point in found["corpus"]["points"]] == [100]
    assert [point["x"] for point in found["prefix"]["points"]] == [8, 16, 32, 64]  # the model reads 64
    assert [point["x"] for point in found["document"]["points"]] == [64, 256, 512]
    assert len(set(found["document"]["bytes"])) == 1  # whatever the documents' length
    assert set(found["candidates"]["line"]) == {"intercept", "slope", "departure"}
    memory = found["memory"]["100 documents"]
    assert memory["candidates"] == 100
    if sys.platform == "linux":
        assert 0 < memory["private"] < 500e6
    assert memory["growth"] == memory["peak"] - memory["loaded"] < 500e6 < 5 * memory["loaded"]
    assert found["tokens"] == 4 and not Path("all/growth/indexes").exists()


def test_the_build_is_compared_with_the_encoder(place: Path) -> None:
    found = results("all/build")
    assert found["documents"] == 32 and found["tokens"] == 32 * 40  # the model reads 40
    encoder, in_onnx, build = found["ways"]
    assert in_onnx["name"] == "bare item encoder, ONNX" and in_onnx["documents_per_second"] > 0
    assert found["build_over_encoder"] == pytest.approx(build["documents_per_second"] / encoder["documents_per_second"])


def test_interrupted_it_says_how_to_go_on_and_does(
    place: Path, mixlm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Curves, documents: int) -> dict[str, int]:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curves, "memory", interrupted)
        said = mixlm(GROWTH)
    assert (said.code, said.out) == (130, "")
    assert said.err == "interrupted: run the same command again to go on; what out holds is safe\n"
    before = Path("out/cells.jsonl").read_bytes()
    assert before.count(b"\n") == 1 + 4 and not Path("out/results.json").exists()
    monkeypatch.setattr(
        Curves, "memory", lambda self, documents: {"loaded": 1, "peak": 2, "growth": 1, "private": 1, "candidates": 1}
    )
    said = mixlm(GROWTH)
    assert said.code == 0, said.err
    assert Path("out/cells.jsonl").read_bytes().startswith(before)
    assert [point["x"] for point in results("out")["corpus"]["points"]] == [60]


BAD: dict[str, tuple[str, list[str]]] = {
    "not a number": (f"{GRID} --lengths 64,long", ["--lengths '64,long'", "whole numbers from 1"]),
    "no number": (f"{GRID} --candidates ''", ["--candidates ''", "like 64,128"]),
    "zero": (f"{GRID} --budgets 0", ["--budgets '0'"]),
    "twice": (f"{GRID} --lengths 64,64", ["different whole numbers"]),
    "no such budget": (f"{GRID} --budgets 8,16", ["(8, 16)", "this model's 4"]),
    "other conditions": (f"{GRID} --rounds 3 --lengths 32", ["all/grid/cells.jsonl", "rounds: 2 there, 3 here"]),
    "another model": (f"{GRID} --model other --budgets 1,2,4,8", ["weights:"]),
    "a ranker that is no BERT": (f"{GRID} --model decoder", ["BertModel", "Qwen3Model"]),
    "no model": (f"{GROWTH} --model ./gone", ["'./gone'"]),
    "output is a file": (GROWTH.replace("--output out", "--output all/grid/results.md"), ["all/grid/results.md"]),
    "build into a file": ("bench build --output all/grid/results.md --model model", ["cannot write into"]),
    "decoder into a file": ("bench decoder --output all/grid/results.md --items 1", ["cannot write into"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    place: Path, mixlm: Command, tiny: Callable[..., MixLM], name: str
) -> None:
    line, told = BAD[name]
    for folder, architecture in (("other", "bert"), ("decoder", "qwen3")):
        if f"--model {folder}" in line:
            tiny(architecture).save_pretrained(folder)
    before = sorted(place.rglob("*"))
    said = mixlm(line)
    assert (said.code, said.out) == (2, ""), said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert [part for part in told if part not in said.err] == []
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("bench grid", "--output"),
        (f"{GRID} --rounds 0", "--rounds"),
        (f"{GROWTH} --largest 0", "--largest"),
        ("bench build --output out --documents 0", "--documents"),
        ("bench race", "'race'"),
    ],
)
def test_a_misused_command_points_to_its_help(mixlm: Command, line: str, named: str) -> None:
    said = mixlm(line)
    assert (said.code, said.out) == (2, "") and named in said.err.splitlines()[-1]


def test_the_store_is_measured_against_a_bare_map_of_the_same_records(place: Path) -> None:
    (point,) = results("all/store")["points"]
    assert point["payload"] == 100 * (4 * 384 + 48) and point["over_payload"] > 1
    assert set(point["milliseconds"]) == {"token index", "bare memory map and a dict"}
    assert point["open_seconds"] > 0 and point["open_memory"] < 5e7
