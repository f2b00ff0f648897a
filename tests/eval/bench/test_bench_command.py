"""``mixlm-rerank bench``: what it writes, that it goes on where it stopped, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from transformers import AutoModel

from mixlm_rerank import MixLM
from mixlm_rerank.eval.bench import contenders, grid, index, kit, machine
from mixlm_rerank.eval.bench.contenders import SHAPES

Command = Callable[[str], Any]
Place = Callable[..., Path]
GRID = "bench grid --output out/grid --model model --rounds 2 --seconds 5"
GROWTH = "bench growth --output new --model model --largest 60 --rounds 2 --seconds 5"
COMMANDS = {
    "grid": f"{GRID} --lengths 32 --candidates 5,10 --budgets 1,4",
    "decoder": "bench decoder --output out/decoder --layers 1 --hidden 64 --document 50 --items 4 --rounds 2",
    "growth": GROWTH.replace("new", "out/growth"),
    "build": "bench build --output out/build --model model --documents 8 --rounds 1",
    "store": "bench store --output out/store --largest 100 --rounds 2",
}
PLOTS = {
    "grid": ["speedup.png"],
    "decoder": ["decoder.png"],
    "growth": ["candidates.png", "corpus.png"],
    "build": [],
    "store": ["fetch.png"],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is large and no option of the commands; no processes of their own; each export to ONNX but once, here."""
    exported, of_ranker, of_shape = grid.exported, contenders.of_ranker, contenders.of_shape
    in_onnx = cache(lambda: tmp_path_factory.mktemp("onnx"))
    made: dict[str, Any] = {}

    def once(name: str, make: Callable[[], Any]) -> Any:
        return made[name] if name in made else made.setdefault(name, make())

    with pytest.MonkeyPatch.context() as patch:
        for module in (grid, index):
            patch.setattr(module, "exported", lambda model, _: once("mixlm", lambda: exported(model, in_onnx() / "m")))
        patch.setattr(
            contenders, "of_ranker", lambda model, _: once("own", lambda: of_ranker(model, in_onnx() / "own"))
        )
        patch.setattr(
            contenders, "of_shape", lambda name, *of: once(name, lambda: of_shape(name, of[0], in_onnx() / name))
        )
        patch.setattr(grid, "DOCUMENTS", 200)
        patch.setattr(kit.matrix_rate, "__defaults__", ((64,), "cpu", torch.float32))
        patch.setattr(machine, "apart", lambda work, *arguments: work(*arguments))
        yield in_onnx()


@pytest.fixture(scope="module")
def saved(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model``."""
    folder = tmp_path_factory.mktemp("bench")
    # small weights, so that a layer passes a rounding error on and does not magnify it; one layer is quick to export
    backbone = checkpoint("bert", initializer_range=0.1, num_hidden_layers=1)
    lengths = {"max_query_tokens": 64, "max_document_tokens": 40}
    model = MixLM.from_backbones(backbone, backbone, residual="late", **lengths)  # type: ignore[arg-type]
    torch.nn.init.normal_(model.readout.score.weight, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def ran(small: Path, saved: Path, mixlm: Command) -> Callable[[str], Any]:
    """``ran("grid")``: what that command said, which is run once, in that folder."""

    @cache
    def run(name: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(saved)
            return mixlm(COMMANDS[name])

    return run


@pytest.fixture
def place(ran: Callable[[str], Any], saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """``place("grid")``: a copy of that folder, with what that command left in ``out``, becomes the current one."""

    def copied(*names: str) -> Path:
        for name in names:
            ran(name)
        shutil.copytree(saved, tmp_path / "work")
        monkeypatch.chdir(tmp_path / "work")
        return tmp_path / "work"

    return copied


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_writes_results_table_and_plots(place: Place, ran: Command, name: str) -> None:
    place(name)
    done, folder = ran(name), Path("out", name)
    assert done.code == 0, done.err
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["cells.jsonl", "results.json", "results.md", *PLOTS[name]]
    )
    assert all((folder / picture).read_bytes().startswith(b"\x89PNG") for picture in PLOTS[name])
    assert (folder / "results.md").read_text() == done.out.removesuffix("\n")
    assert results(f"out/{name}")["machine"]["torch"]
    assert "100%" in done.err and (", about " in done.err or name == "store")  # progress, estimate


@pytest.mark.slow
@pytest.mark.processes
def test_all_runs_everything(saved: Path, tmp_path: Path, mixlm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "DOCUMENTS", 200)
    done = mixlm(f"bench all --output {tmp_path} --model {saved / 'model'} --quick")
    assert done.code == 0, done.err
    assert sorted(path.parent.name for path in tmp_path.glob("*/results.json")) == sorted(COMMANDS)
    assert all(path.read_text() in done.out for path in tmp_path.glob("*/results.md"))


def test_the_grid_has_all_contenders_in_each_cell_after_sameness(place: Place) -> None:
    place("grid")
    found = results("out/grid")
    assert found["sameness"]["mixlm"] < 1e-4 and found["sameness"]["onnx"]["difference"] < 1e-3
    assert found["sameness"]["onnx"]["correlation"] > 0.8 and found["sameness"]["int8"] > 0
    assert [cell["name"] for cell in found["cells"]] == [
        f"32 tokens, {count} candidates, query of 16" for count in (5, 10)
    ]
    for cell in found["cells"]:
        rows = {row["name"]: row for row in cell["contenders"]}
        kinds = [f"MixLM k={tokens}{kind}" for kind in ("", ", int8", ", ONNX") for tokens in (1, 4)]
        judges = ["cross-encoder, defaults", "cross-encoder, best", "cross-encoder, ONNX int8"]
        assert list(rows) == [*judges, *SHAPES, *kinds]
        assert rows["cross-encoder, best"]["speedup"] == 1.0
        assert all(row["rounds"] == 2 for row in rows.values())
        for name, row in rows.items():
            assert row["realised"] == pytest.approx(row["speedup"] / row["flop_ratio"])
            assert (row["outside"] is not None) == (row["tokens"] is not None and "ONNX" not in name)
        ratios = [rows[name]["flop_ratio"] for name in (*judges, *kinds)]
        assert ratios[:3] == [1.0] * 3 and ratios[3] > ratios[4] > 1 and ratios[3:5] == ratios[5:7] == ratios[7:]
        small, middle, twelve = (rows[name]["flop_ratio"] for name in SHAPES)
        assert 1 > small > middle > twelve  # each more work than the tiny model's own text


@pytest.mark.parametrize(
    ("name", "vocabulary", "millions"), [*zip(SHAPES, (50368, 50368, 30522), (17, 32, 33), strict=True)]
)
def test_the_shapes_have_as_many_parameters_as_published(name: str, vocabulary: int, millions: int) -> None:
    kind, sizes = SHAPES[name]
    with torch.device("meta"):
        config = kind(vocab_size=vocabulary, **dict(zip(contenders.SIZES, sizes, strict=True)))
        model = AutoModel.from_config(config)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == millions


def test_all_linear_layers_of_the_cross_encoder_are_int8(place: Place, small: Path) -> None:
    """A pattern that the quantiser does not know would be left in float32, in silence."""
    place("grid")
    float32, int8 = (onnx.load(str(small / "own" / f"{name}.onnx")).graph for name in ("float32", "int8"))
    constants = {constant.name for constant in float32.initializer}
    linear = [node for node in float32.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants]
    assert len(linear) == sum(node.op_type == "MatMulInteger" for node in int8.node) > 0


def cells() -> dict[str, Any]:
    """What the grid has kept, but for what is looked at again in each run."""
    kept = [json.loads(line) for line in Path("out/grid/cells.jsonl").read_text().splitlines()[1:]]
    return {row["cell"]: row["values"] for row in kept if not row["cell"].startswith(("sameness", "matrix product"))}


def test_the_same_grid_again_measures_nothing_and_a_larger_one_only_what_is_new(place: Place, mixlm: Command) -> None:
    place("grid")
    whole, before = Path("out/grid/cells.jsonl").read_bytes(), cells()
    said = mixlm(COMMANDS["grid"])
    assert said.code == 0, said.err
    assert Path("out/grid/cells.jsonl").read_bytes() == whole
    said = mixlm(COMMANDS["grid"].replace("5,10", "7"))
    assert said.code == 0, said.err
    after = cells()
    assert {name: after[name] for name in before} == before
    assert [name for name in after if name not in before] == ["32 tokens, 7 candidates, query of 16"]
    assert [cell["candidates"] for cell in results("out/grid")["cells"]] == [5, 7, 10]


def test_the_decoder_stands_beside_the_paper(place: Place) -> None:
    place("decoder")
    found = results("out/decoder")
    assert [way["name"] for way in found["ways"]] == [
        *("full text", "full text, prefix once", "MixLM, without prefix sharing", "MixLM")
    ]
    assert found["sameness"] < 1e-3
    gains = {gain["name"]: gain for gain in found["gains"]}
    assert gains["MixLM over full text, both shared"]["paper"] == pytest.approx(75.9, abs=0.05)
    assert gains["prefix sharing, MixLM"]["paper"] == pytest.approx(7.3, abs=0.05)
    assert all(gain["flop_ratio"] > 1 for gain in gains.values())


def test_growth_has_its_curves_and_memory_and_leaves_no_index(place: Place) -> None:
    place("growth")
    found = results("out/growth")
    x = {
        name: [point["x"] for point in found[name]["points"]] for name in ("candidates", "corpus", "prefix", "document")
    }
    assert x["candidates"] == [10, 30, 60] and x["corpus"] == [60] and x["document"] == [64, 256, 512]
    assert x["prefix"] == [8, 16, 32, 64]  # the model reads 64
    assert set(found["candidates"]["line"]) == {"intercept", "slope", "departure"}
    memory = found["memory"]["60 documents"]
    assert memory["candidates"] == 60 and memory["loaded"] > 50e6
    if sys.platform == "linux":
        assert 0 <= memory["private"] < 500e6
    assert found["tokens"] == 4 and not Path("out/growth/indexes").exists()


def test_the_build_is_compared_with_the_encoder(place: Place) -> None:
    place("build")
    found = results("out/build")
    assert found["documents"] == 8 and found["tokens"] == 8 * 40  # the model reads 40
    encoder, in_onnx, build = found["ways"]
    assert in_onnx["name"] == "bare item encoder, ONNX" and in_onnx["documents_per_second"] > 0
    assert found["build_over_encoder"] == pytest.approx(build["documents_per_second"] / encoder["documents_per_second"])


def test_interrupted_it_says_how_to_go_on_and_does(place: Place, mixlm: Command) -> None:
    place()

    def interrupted(*arguments: object) -> object:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "apart", interrupted)
        said = mixlm(f"{GROWTH} --quiet")
    assert (said.code, said.out) == (130, "")
    assert said.err == "interrupted: run the same command again to go on; what new holds is safe\n"
    before = Path("new/cells.jsonl").read_bytes()
    assert before.count(b"\n") == 1 + 4 and not Path("new/results.json").exists()
    said = mixlm(f"{GROWTH} --quiet")
    assert (said.code, said.err) == (0, "")
    assert Path("new/cells.jsonl").read_bytes().startswith(before)
    assert [point["x"] for point in results("new")["corpus"]["points"]] == [60]


BAD: dict[str, tuple[str, list[str]]] = {
    "not a number": (f"{GRID} --lengths 64,long", ["--lengths '64,long'", "whole numbers from 1"]),
    "no number": (f"{GRID} --candidates ''", ["--candidates ''", "like 64,128"]),
    "zero": (f"{GRID} --budgets 0", ["--budgets '0'"]),
    "twice": (f"{GRID} --lengths 64,64", ["different whole numbers"]),
    "no such budget": (f"{GRID} --budgets 8,16", ["(8, 16)", "this model's 4"]),
    "other conditions": (
        f"{GRID} --rounds 3 --lengths 32 --budgets 1,4",
        ["out/grid/cells.jsonl", "rounds: 2 there, 3 here"],
    ),
    "another model": (f"{GRID} --model other --budgets 1,4", ["weights:"]),
    "a ranker that is no BERT": (f"{GRID} --model decoder", ["BertModel", "Qwen3Model"]),
    "no model": (f"{GROWTH} --model ./gone", ["'./gone'"]),
    "output is a file": (GROWTH.replace("--output new", "--output out/grid/results.md"), ["out/grid/results.md"]),
    "build into a file": ("bench build --output out/grid/results.md --model model", ["cannot write into"]),
    "decoder into a file": ("bench decoder --output out/grid/results.md --items 1", ["cannot write into"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    place: Place, mixlm: Command, tiny: Callable[..., MixLM], name: str
) -> None:
    line, told = BAD[name]
    work = place("grid")
    for folder, architecture in (("other", "bert"), ("decoder", "qwen3")):
        if f"--model {folder}" in line:
            tiny(architecture).save_pretrained(folder)
    before = sorted(work.rglob("*"))
    said = mixlm(line)
    assert (said.code, said.out) == (2, ""), said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert [part for part in told if part not in said.err] == []
    assert sorted(work.rglob("*")) == before


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


def test_the_store_is_measured_against_a_bare_map_of_the_same_records(place: Place) -> None:
    place("store")
    (point,) = results("out/store")["points"]
    assert point["payload"] == 100 * (4 * 384 + 48) and point["over_payload"] > 1
    assert set(point["milliseconds"]) == {"token index", "bare memory map and a dict"}
    assert point["open_seconds"] > 0 and point["open_memory"] < 5e7
