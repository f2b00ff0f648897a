"""``eval report``, ``eval fit`` and ``eval compare``, on a tiny collection with tiny models."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import ir_measures
import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex, numbers
from mixlm_rerank.data import open_corpus, read_qrels, read_run, read_topics
from mixlm_rerank.eval.results import Evaluation, load_results

Command = Callable[[str], Any]
RUN = "--first-stage run:{collection}/run.trec --quiet"
REPORT = f"eval report tiny --output out --model a {RUN} --systems mixlm:1"


@pytest.fixture(scope="session")
def models(tiny: Callable[..., MixLM], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one recipe: ``a`` and ``b``."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("a", "b"):
        tiny("bert").save_pretrained(folder / name)
    other = MixLM.from_pretrained(folder / "b", device="cpu")
    other.readout.score.weight.data *= -1
    other.save_pretrained(folder / "b2")
    shutil.rmtree(folder / "b")
    (folder / "b2").rename(folder / "b")
    return folder


@pytest.fixture
def place(beir: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the collection ``tiny`` and both models."""
    shutil.copytree(beir, tmp_path / "tiny")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(models / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def done(mixlm: Command, line: str) -> Evaluation:
    """The results of a report that must succeed."""
    found = mixlm(line)
    assert found.code == 0, found.err
    return load_results("out")


def test_a_report_is_a_page_tables_results_and_runs(place: Path, mixlm: Command) -> None:
    line = f"{REPORT},full-text,cosine --teacher full-text --depth 4 -m AP -m nDCG@3"
    said = mixlm(line)
    assert (said.code, said.err) == (0, "out/report.html: 1 collections, 5 systems\n")
    assert said.out.splitlines()[0].split(". ")[0] in {
        f"Worth switching? {verdict}" for verdict in ("Yes", "No", "Not shown")
    }
    assert Path("out/tables.md").read_text().startswith("**Worth switching?** ")
    assert {path.name for path in Path("out").iterdir()} == {
        *("queries.tsv", "report.html", "results.json", "tables.md", "tables.tex", "tiny")
    }
    results = load_results("out")
    assert shlex.split(results.command) == ["mixlm-rerank", *shlex.split(line)]
    assert results.measures == ["AP", "nDCG@3", "Judged@10"] and results.version and results.machine["torch"]
    (tiny,) = results.collections
    assert (tiny.name, tiny.documents, tiny.queries, tiny.depth) == ("tiny", 6, 7, 4)
    assert (tiny.first_stage, tiny.baseline, tiny.teacher) == ("run file run.trec", "first stage", "full-text mode")
    runs = [f"out/tiny/{name}.trec" for name in ("first-stage", "MixLM-k=1", "full-text-mode", "cosine", "oracle")]
    again = mixlm(f"eval runs {' '.join(runs)} --qrels tiny/qrels/test.tsv --json -m AP -m nDCG@3 -m Judged@10")
    measured = json.loads(again.out)["measures"]
    assert [system.measures for system in tiny.systems] == [pytest.approx(measured[run]) for run in runs]
    page = Path("out/report.html").read_text()
    assert all(system.name in page for system in tiny.systems)
    with Path("out/queries.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    assert len(rows) == 7 * 5 * 3
    for system in tiny.systems:
        own = [float(row["value"]) for row in rows if (row["system"], row["measure"]) == (system.name, "AP")]
        assert fmean(own) == pytest.approx(system.measures["AP"])


def test_recall_is_measured_where_the_ranking_ends(place: Path, mixlm: Command) -> None:
    assert "R@4" in done(mixlm, f"{REPORT} --depth 4").measures
    assert "R@100" in done(mixlm, REPORT).measures


def test_a_folder_of_beir_folders_is_all_of_them(place: Path, mixlm: Command) -> None:
    for name in ("one", "two", "three", "no collection"):
        Path("data", name).mkdir(parents=True)
    for name in ("one", "two", "three"):
        shutil.copytree("tiny", Path("data", name), dirs_exist_ok=True)
    Path("data/two/qrels/dev.tsv").unlink()
    results = done(mixlm, REPORT.replace("report tiny", "report data"))
    assert [found.name for found in results.collections] == ["one", "three", "two"]
    results = done(mixlm, REPORT.replace("report tiny", "report data@dev tiny"))
    assert [found.name for found in results.collections] == ["one dev", "three dev", "tiny"]
    head = Path("out/tables.md").read_text().split("\n| system", 1)[1].splitlines()[0]
    assert head.split(" | ")[-2:] == ["mean", "documents/s |"]


def test_an_index_that_is_there_is_used(place: Path, mixlm: Command) -> None:
    """The same rankings, and none is built; of several models it is that of the one that built it."""
    expected = done(mixlm, f"{REPORT},full-text")
    built = [path.name for path in Path("out/tiny").glob("tokens-*")]
    shutil.rmtree("out")
    _index()
    found = done(mixlm, f"{REPORT},full-text --index 'by hand'")
    assert [s.measures for s in found.collections[0].systems] == [s.measures for s in expected.collections[0].systems]
    assert built and not list(Path("out/tiny").glob("tokens-*"))
    shutil.move("by hand", "tiny/tokens")
    done(mixlm, f"{REPORT} --index {{collection}}/tokens --sample 3".replace("report tiny", "report tiny tiny@dev"))
    said = mixlm(f"eval fit tiny --output out --model a --systems mixlm:2 --index tiny/tokens {RUN}")
    assert said.code == 0, said.err


def test_an_index_of_another_precision_is_ranked_anew(place: Path, mixlm: Command) -> None:
    model = MixLM.from_pretrained("a", device="cpu")
    for precision in ("int8", "float32"):
        TokenIndex.build(open_corpus("tiny"), model, precision, precision=precision, progress=False)
    done(mixlm, f"{REPORT} --index int8")
    before = Path("out/tiny/MixLM-k=1.jsonl").read_bytes()
    done(mixlm, f"{REPORT} --index float32")
    assert Path("out/tiny/MixLM-k=1.jsonl").read_bytes().splitlines()[0] != before.splitlines()[0]


def test_an_own_lucene_index_with_own_settings(place: Path, mixlm: Command) -> None:
    from mixlm_rerank.integrations.lucene import bm25_run, open_searcher

    assert mixlm("bm25 index tiny own --quiet").code == 0
    searcher, queries = open_searcher("own"), read_topics("tiny")
    line = "eval report tiny --output out --model a --systems cosine --quiet -m AP --first-stage bm25:own@k1={},b={}"
    found = []
    for settings in ((0.9, 0.4), (2.5, 1.0)):
        searcher.set_bm25(*settings)
        done(mixlm, line.format(*settings))
        found.append(read_run("out/tiny/first-stage.trec"))
        for qid, hits in bm25_run(searcher, queries).items():
            assert {hit.docid: hit.score for hit in found[-1].get(qid, [])} == pytest.approx(
                {hit.docid: hit.score for hit in hits}, abs=1e-4
            )
    assert found[0] != found[1]
    assert not Path("out/tiny/lucene").exists()


def test_two_models_are_seeds_and_the_table_shows_their_mean(place: Path, mixlm: Command) -> None:
    results = done(mixlm, f"eval report tiny tiny@dev --output out --model a --model b --systems mixlm:2 {RUN}")
    seeds = [[s for s in collection.systems if s.seed_group] for collection in results.collections]
    assert [[(s.name, s.seed_group) for s in found] for found in seeds] == 2 * [
        [("MixLM k=2 [a]", "MixLM k=2"), ("MixLM k=2 [b]", "MixLM k=2")]
    ]
    values = [[s.measures["nDCG@10"] for s in found] for found in seeds]
    assert values[0][0] != values[0][1]
    row, *_ = [line for line in Path("out/tables.md").read_text().splitlines() if line.startswith("| MixLM k=2")]
    name, *cells = row.replace("*", "").split("|")[1:5]
    for cell, expected in zip(cells, [fmean(values[0]), fmean(values[1]), fmean(map(fmean, values))], strict=True):
        assert cell.split()[0].rstrip("▲△▽▼") == numbers.measure(expected)
    assert "2 seeds, ±" in name


def test_ties_of_a_first_stage_count_as_eval_runs_counts_them(place: Path, mixlm: Command) -> None:
    """trec_eval goes by docid then, whatever the order of the lines."""
    docids = [document.docid for document in open_corpus("tiny")]
    qids = list(read_topics("tiny"))
    Path("tied.trec").write_text("".join(f"{qid} Q0 {docid} 1 2.0 x\n" for qid in qids for docid in docids))
    (found,) = done(mixlm, REPORT.replace("run:{collection}/run.trec", "run:tied.trec")).collections
    told = json.loads(mixlm("eval runs tied.trec --qrels tiny/qrels/test.tsv -m nDCG@10 -m AP --json").out)["measures"]
    first_stage = found.systems[0].measures
    assert {name: first_stage[name] for name in ("nDCG@10", "AP")} == pytest.approx(told["tied.trec"], abs=1e-9)


def test_candidates_only_encodes_no_other_documents(place: Path, mixlm: Command) -> None:
    done(mixlm, f"{REPORT} --candidates-only --depth 1 --sample 3")
    (index,) = (path for path in Path("out/tiny").glob("tokens-*") if path.is_dir())
    assert 0 < len(TokenIndex(index)) <= 3


def test_splits_samples_topics_and_judgments(place: Path, mixlm: Command) -> None:
    both = done(mixlm, REPORT.replace("report tiny", "report tiny tiny@dev"))
    assert [(found.name, found.queries) for found in both.collections] == [("tiny", 7), ("tiny dev", 3)]
    (sample,) = done(mixlm, f"{REPORT} --sample 4").collections
    assert (sample.name, sample.queries) == ("tiny (4 of 7 queries)", 4)
    Path("topics.tsv").write_text("q1\tmoon\nq2\tcats\n")
    Path("qrels.txt").write_text("q1 0 d3 1\nq2 0 d2 1\n")
    (own,) = done(mixlm, f"{REPORT} --topics topics.tsv --qrels qrels.txt").collections
    assert own.queries == 2
    expected = Reranker(MixLM.from_pretrained("a", device="cpu"), _index(), tokens=1)
    for qid, text in (("q1", "moon"), ("q2", "cats")):
        docs = expected.rerank(text, read_run("tiny/run.trec")[qid])
        assert [hit.docid for hit in read_run("out/tiny/MixLM-k=1.trec")[qid]] == [doc.docid for doc in docs]


def test_a_folder_may_have_an_at_sign_in_its_name(place: Path, mixlm: Command) -> None:
    Path("me@work").mkdir()
    shutil.copytree("tiny", "me@work/tiny")
    shutil.copytree("tiny", "tiny@2")
    sources = "me@work/tiny me@work/tiny@dev tiny@2"
    results = done(mixlm, REPORT.replace("report tiny", f"report {sources}").replace("{collection}", "tiny"))
    assert [found.name for found in results.collections] == ["tiny", "tiny dev", "tiny@2"]


def test_run_again_it_ranks_only_what_is_new(place: Path, mixlm: Command) -> None:
    def record() -> bytes:
        return Path("out/tiny/MixLM-k=1.jsonl").read_bytes()

    first, before = done(mixlm, REPORT), record()
    again = done(mixlm, f"{REPORT},cosine -m AP")
    assert record() == before  # with its times
    assert again.collections[0].systems[1].efficiency == first.collections[0].systems[1].efficiency
    done(mixlm, REPORT.replace("--model a", "--model b"))
    assert record() != before


def test_fit_finds_the_weight_that_trying_all_of_them_finds(place: Path, mixlm: Command) -> None:
    said = mixlm(f"eval fit tiny@test tiny --output out --model a --systems mixlm:2,cosine -m AP {RUN}")
    assert said.code == 0, said.err
    candidates, topics, index = read_run("tiny/run.trec"), read_topics("tiny/queries.jsonl"), _index()
    model = MixLM.from_pretrained("a", device="cpu")
    values = {}
    for weight in (step / 20 for step in range(21)):
        found = Reranker(model, index, tokens=2, first_stage_weight=weight).rerank_batch(topics, candidates)
        run = {qid: {doc.docid: -doc.rank for doc in docs} for qid, docs in found.items()}
        splits = [read_qrels(f"tiny/qrels/{split}.tsv") for split in ("test", "dev")]
        ap = ir_measures.AP
        values[weight] = fmean(ir_measures.calc_aggregate([ap], qrels, run)[ap] for qrels in splits)
    best = max(values, key=lambda weight: values[weight])
    assert len(set(values.values())) > 3
    lines = said.out.splitlines()
    assert lines[0].startswith(f"MixLM k=2: weight {best:g} gives AP {values[best]:.4f} (")
    assert f" cross-validated, {values[0]:.4f} alone, {values[1]:.4f} for the first stage alone); worse" in lines[0]
    assert " of 10 queries, " in lines[0]
    assert len(lines) == 2 and lines[1].startswith("cosine: weight ")


def test_compare_tells_two_reports_apart(place: Path, mixlm: Command) -> None:
    a = done(mixlm, REPORT)
    shutil.move("out", "before")
    b = done(mixlm, REPORT.replace("--model a", "--model b"))
    said = mixlm("eval compare before out/results.json --html difference.html")
    assert (said.code, said.err) == (0, "")
    (row,) = [line for line in said.out.splitlines() if line.lstrip().startswith("MixLM k=1")]
    for evaluation in (a, b):
        assert numbers.measure(evaluation.collections[0].systems[1].measures["nDCG@10"]) in row
    assert "MixLM k=1" in Path("difference.html").read_text()
    said = mixlm("eval compare before before")
    assert said.code == 0 and "MixLM k=1" in said.out


# The real command, that is interrupted when the fifth query is ranked: the warm-up, and three others, came before.
INTERRUPTED = """
import os, signal
from mixlm_rerank.cli import main
from mixlm_rerank.systems.mixlm import FullTextMode
plain, asked = FullTextMode.rank, []
def rank(self, *arguments):
    asked.append(arguments)
    if len(asked) == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return plain(self, *arguments)
FullTextMode.rank = rank
main()
"""


@pytest.mark.processes
def test_interrupted_it_says_how_to_go_on_and_does(place: Path, mixlm: Command) -> None:
    """Ctrl-C on a real process with a Java machine in it: exit code 130, and the same command goes on."""
    judged = [f"q{number}" for number in range(12)]
    Path("many/qrels").mkdir(parents=True)
    shutil.copy("tiny/corpus.jsonl", "many")
    texts = [f"a dog, a cat or the moon and mail {qid}" for qid in judged]
    rows = [json.dumps({"_id": qid, "text": text}) for qid, text in zip(judged, texts, strict=True)]
    Path("many/queries.jsonl").write_text("\n".join(rows))
    Path("many/qrels/test.tsv").write_text("".join(f"{qid}\td1\t1\n" for qid in judged))
    line = "eval report many --output out --model a --systems full-text -m AP --quiet"  # first stage: bm25
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED, *line.split()], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, ""), ended.stderr
    assert ended.stderr.splitlines()[-1] == "interrupted: run the same command again to go on; what out holds is safe"
    assert "Traceback" not in ended.stderr and not Path("out/results.json").exists()
    record = Path("out/many/full-text-mode.jsonl")
    before = record.read_bytes().splitlines()
    assert len(before) == 1 + 3  # the first line says what they are of
    (many,) = done(mixlm, line).collections
    assert many.queries == 12 and many.first_stage.startswith("BM25")
    after = record.read_bytes().splitlines()
    assert after[: len(before)] == before and len(after) == 1 + 12 + 1


def _index() -> TokenIndex:
    model = MixLM.from_pretrained("a", device="cpu")
    return TokenIndex.build(open_corpus("tiny"), model, "by hand", progress=False)


OUTSIDE = "q1 Q0 d1 1 2 x\nq1 Q0 zz 2 1 x\n"
BAD: dict[str, tuple[str, list[str]]] = {
    "unknown system": (
        REPORT.replace("mixlm:1", "mixml"),
        ["no such system: 'mixml' (did you mean 'mixlm'?)", "full-text"],
    ),
    "index gone": (f"{REPORT} --index gone", ["gone", "mixlm-rerank index build"]),
    "index of another model": (f"{REPORT} --index others", ["others was built by item encoder"]),
    "index of other documents": (
        f"{REPORT} --index fewer",
        ["fewer lacks 2 documents of tiny and holds 1 with another text", "mixlm-rerank index sync "],
    ),
    "index with braces": (f"{REPORT} --index {{corpus}}", ["{collection} and {split}", "no other braces"]),
    "no split in any folder": (
        REPORT.replace("report tiny", "report all@train"),
        ["none of the 1 BEIR folders in all"],
    ),
    "no system": (REPORT.replace("mixlm:1", "','"), ["no systems are named"]),
    "not a number": (REPORT.replace("mixlm:1", "mixlm:one"), ["'mixlm:one' needs a whole number"]),
    "budget too large": (REPORT.replace("mixlm:1", "mixlm:9"), ["between 1 and 4", "not 9"]),
    "unknown split": (REPORT.replace("report tiny", "report tiny@train"), ["no split 'train'", "dev, test"]),
    "no folder": (REPORT.replace("report tiny", "report gone"), ["no corpus at 'gone'"]),
    "no folder, fit": (REPORT.replace("report tiny", "fit gone"), ["no corpus at 'gone'"]),
    "no model": (REPORT.replace("--model a", "--model ./gone"), ["'./gone'"]),
    "a model twice": (f"{REPORT} --model a", ["models must have different names"]),
    "topics of two": (
        f"{REPORT} --topics tiny/queries.jsonl".replace("report tiny", "report tiny tiny@dev"),
        ["--topics and --qrels belong to one collection"],
    ),
    "a collection twice": (
        REPORT.replace("report tiny", "report tiny tiny"),
        ["collections must have different names"],
    ),
    "unknown first stage": (f"{REPORT} --first-stage bm42", ["no such first stage: 'bm42'"]),
    "no run": (f"{REPORT} --first-stage run:gone.trec", ["no such file: gone.trec"]),
    "unknown baseline": (f"{REPORT} --baseline BM25", ["baseline 'BM25'", "first stage, MixLM k=1, oracle"]),
    "unknown teacher": (f"{REPORT} --teacher judge", ["teacher 'judge'"]),
    "unknown measure": (f"{REPORT} -m nDGC@10", ["unknown measure 'nDGC@10'"]),
    "unknown measure, fit": (REPORT.replace("report", "fit") + " -m nDGC@10", ["unknown measure 'nDGC@10'"]),
    "documents of another corpus": (f"{REPORT} --first-stage run:outside.trec", ["'zz'", "do they belong together?"]),
    "no documents": (REPORT.replace("report tiny", "report bare"), ["bare has no documents", "give its corpus"]),
    "output is a file": (REPORT.replace("--output out", "--output tiny/run.trec"), ["cannot write into tiny/run.trec"]),
    "output under a file": (
        REPORT.replace("--output out", "--output bad.json/out"),
        ["cannot write into bad.json/out"],
    ),
    "output in a device": (REPORT.replace("--output out", "--output /proc/out"), ["cannot write into /proc/out"]),
    "damaged results": ("eval compare whole.json bad.json", ["bad.json does not hold results of an evaluation"]),
    "cut-off results": ("eval compare cut.json whole.json", ["cut.json does not hold results of an evaluation"]),
    "no results": ("eval compare whole.json tiny", ["no results at tiny/results.json", "eval report"]),
    "no folder for the page": ("eval compare whole.json whole.json --html gone/page.html", ["no folder gone"]),
    "the page is a folder": ("eval compare whole.json whole.json --html tiny", ["cannot write tiny"]),
}


@pytest.fixture(scope="session")
def whole(beir: Path, models: Path, mixlm: Command, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A results.json."""
    out = tmp_path_factory.mktemp("whole") / "out"
    said = mixlm(f"eval report {beir} --output {out} --model {models / 'a'} --systems cosine {RUN}")
    assert said.code == 0, said.err
    return (out / "results.json").read_text()


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    place: Path, mixlm: Command, whole: str, tiny: Callable[..., MixLM], name: str
) -> None:
    Path("outside.trec").write_text(OUTSIDE)
    shutil.copytree("tiny", "bare")
    Path("bare/corpus.jsonl").unlink()
    shutil.copytree("tiny", "all/tiny")
    if "--index" in BAD[name][0]:
        _index()
        shutil.move("by hand", "fewer")
        first, second, *others = open_corpus("tiny")
        TokenIndex("fewer").delete([first.docid, second.docid])
        model = MixLM.from_pretrained("a", device="cpu")
        TokenIndex("fewer").replace([replace(others[0], text="new")], model, progress=False)
        TokenIndex.build(others, tiny("qwen3"), "others", progress=False)
    for file, text in (("whole.json", whole), ("cut.json", whole[:-100]), ("bad.json", '{"created": 1}')):
        Path(file).write_text(text)
    before = sorted(place.rglob("*"))
    line, told = BAD[name]
    said = mixlm(line)
    assert (said.code, said.out) == (2, ""), said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert [part for part in told if part not in said.err] == []
    new = [path for path in sorted(place.rglob("*")) if path not in before]
    assert [path for path in new if not path.is_dir() and path.suffix != ".jsonl"] == []


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (f"{REPORT} --sample 0", "--sample"),
        (f"{REPORT} --depth 0", "--depth"),
        ("eval report tiny", "--output"),
        ("eval fit --output out", "'collections"),
        ("eval compare out", "'b'"),
    ],
)
def test_a_misused_command_points_to_its_help(place: Path, mixlm: Command, line: str, named: str) -> None:
    said = mixlm(line)
    assert (said.code, said.out) == (2, "") and named in said.err.splitlines()[-1].lower()
    assert any("--help' for help" in row for row in said.err.splitlines())
    assert not Path("out").exists()
