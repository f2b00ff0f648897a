"""A whole evaluation of real, tiny systems: held against ir_measures, against the systems alone, and against kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from mixlm_rerank import Candidate, Document, MixLM, ScoredDoc, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval import fidelity, harness
from mixlm_rerank.eval.harness import evaluate_collection
from mixlm_rerank.eval.results import CollectionResult, SystemResult
from mixlm_rerank.systems.collections import Collection, open_collection
from mixlm_rerank.systems.combined import Interpolated
from mixlm_rerank.systems.first_stages import FirstStage, RunFile
from mixlm_rerank.systems.machine import machine, peak_memory, reset_peak_memory
from mixlm_rerank.systems.mixlm import Cascade, Cosine, FullTextMode, TokenReranker
from mixlm_rerank.systems.protocol import System
from mixlm_rerank.systems.ranked import find_candidates, rank, slug
from mixlm_rerank.systems.sentence_transformers import BiEncoder, CrossEncoder
from mixlm_rerank.systems.workplace import Workplace

MEASURES = ["nDCG@10", "RR@10", "AP", "R@3", "Judged@10"]
TEACHER = "full-text mode"
Evaluated = tuple[Path, CollectionResult]


class Spy:
    """Any system; keeps what it was asked for, and may kill its process when it has been asked so often."""

    def __init__(self, system: System, dies_after: int | None = None) -> None:
        self.system, self.dies_after = system, dies_after
        self.prepared = 0
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system, name)

    def prepare(self, work: Workplace) -> object:
        self.prepared += 1
        return self.system.prepare(work)

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        if len(self.asked) == self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.asked.append(query)
        return self.system.rank(query, candidates)


@pytest.fixture(scope="module")
def evaluated(
    beir: Path, stage: RunFile, tiny: Callable[..., MixLM], tmp_path_factory: pytest.TempPathFactory
) -> Evaluated:
    """Folder and result of seven systems on the tiny collection, two of them seeds of one."""
    folder = tmp_path_factory.mktemp("evaluated") / "tiny"
    work = Workplace(open_collection(beir), folder, folder, progress=False)
    model = tiny("bert")
    systems: list[System] = [
        TokenReranker(model, 2, seed="a"),
        TokenReranker(tiny("bert", residual="none"), 2, seed="b"),
        TokenReranker(model, 1),
        Cascade(model, 2),
        Cosine(model),
        FullTextMode(model),
        Interpolated(TokenReranker(model), 0.4),
    ]
    return work.folder, evaluate_collection(work, stage, systems, measures=MEASURES, depth=6, teacher=TEACHER)


def by_name(result: CollectionResult) -> dict[str, SystemResult]:
    return {system.name: system for system in result.systems}


def run_of(folder: Path, name: str) -> dict[str, dict[str, float]]:
    """The written run of a system: qid -> docid -> score."""
    found: dict[str, dict[str, float]] = {}
    for row in ir_measures.read_trec_run(str(folder / f"{slug(name)}.trec")):
        found.setdefault(row.query_id, {})[row.doc_id] = row.score
    return found


def ranking_of(folder: Path, name: str) -> dict[str, list[Candidate]]:
    """The same by falling score."""
    return {
        qid: [Candidate(docid, scores[docid]) for docid in sorted(scores, key=lambda docid: -scores[docid])]
        for qid, scores in run_of(folder, name).items()
    }


def test_values_are_those_of_ir_measures_on_the_written_runs(evaluated: Evaluated, work: Workplace) -> None:
    folder, result = evaluated
    qrels = work.collection.qrels
    parsed = {name: ir_measures.parse_measure(name) for name in MEASURES}
    assert len(list(folder.glob("*.trec"))) == len(result.systems) == 9
    for system in result.systems:
        run = run_of(folder, system.name)
        means = ir_measures.calc_aggregate(parsed.values(), qrels, run)
        assert system.measures == pytest.approx({name: means[measure] for name, measure in parsed.items()})
        for name, measure in parsed.items():
            values = dict.fromkeys(qrels, 0.0)
            values.update({row.query_id: row.value for row in ir_measures.iter_calc([measure], qrels, run)})
            assert system.per_query[name] == pytest.approx(values)
    assert len({system.measures["AP"] for system in result.systems}) > 4


def test_every_system_ranks_all_candidates_of_every_query_that_has_any(evaluated: Evaluated, stage: RunFile) -> None:
    folder, result = evaluated
    as_found = ranking_of(stage.path.parent, "run")
    assert len(as_found) == 6 and {len(hits) for hits in as_found.values()} == {6}
    for system in result.systems:
        found = ranking_of(folder, system.name)
        assert list(found) == list(as_found)
        assert all({hit.docid for hit in hits} == {f"d{row}" for row in range(1, 7)} for hits in found.values())
        assert system.per_query["nDCG@10"]["q4"] == 0  # no candidates: it counts, as nothing found
    first = ranking_of(folder, "first stage")
    assert {qid: [hit.docid for hit in hits] for qid, hits in first.items()} == {
        qid: [hit.docid for hit in hits] for qid, hits in as_found.items()
    }


def test_the_oracle_is_the_ceiling(evaluated: Evaluated) -> None:
    systems = by_name(evaluated[1])
    oracle = systems.pop("oracle").per_query
    for measure in ("nDCG@10", "RR@10", "AP", "R@3"):
        assert {qid for qid, value in oracle[measure].items() if value < 1} == {"q4"}
        for system in systems.values():
            assert all(value <= oracle[measure][qid] + 1e-9 for qid, value in system.per_query[measure].items())
    assert all(system.measures["nDCG@10"] < np.mean(list(oracle["nDCG@10"].values())) for system in systems.values())


def test_fidelity_is_that_of_the_written_runs(evaluated: Evaluated) -> None:
    folder, result = evaluated
    teacher = ranking_of(folder, TEACHER)
    for system in result.systems:
        expected = None if system.name == TEACHER else fidelity(ranking_of(folder, system.name), teacher)
        assert system.fidelity == expected
    assert result.teacher == TEACHER


def test_the_baseline_is_tested_against_by_all_others(evaluated: Evaluated) -> None:
    systems = by_name(evaluated[1])
    for system in systems.values():
        values = system.per_query["nDCG@10"]
        gains = [value - systems["first stage"].per_query["nDCG@10"][qid] for qid, value in values.items()]
        if system.name == "first stage":
            assert system.comparison is None
            continue
        assert system.comparison is not None
        assert system.comparison.difference == pytest.approx(np.mean(gains))
        assert (system.comparison.wins, system.comparison.losses) == (
            sum(g > 0 for g in gains),
            sum(g < 0 for g in gains),
        )


def test_seeds_share_a_group(evaluated: Evaluated) -> None:
    groups = {system.name: system.seed_group for system in evaluated[1].systems if system.seed_group}
    assert groups == {"MixLM k=2 [a]": "MixLM k=2", "MixLM k=2 [b]": "MixLM k=2"}
    systems = by_name(evaluated[1])
    assert systems["MixLM k=2 [a]"].measures != systems["MixLM k=2 [b]"].measures


def test_costs_follow_from_the_recorded_times(evaluated: Evaluated) -> None:
    folder, result = evaluated
    timed = [system for system in result.systems if system.efficiency]
    assert len(timed) == 7
    for system in timed:
        cost = system.efficiency
        assert cost is not None
        rows = [
            line for line in (folder / f"{slug(system.name)}.jsonl").read_text().splitlines() if '"seconds"' in line
        ]
        seconds = [float(line.split('"seconds": ')[1].split(",")[0]) for line in rows]
        assert len(seconds) == 6
        assert cost.documents_per_second == pytest.approx(36 / sum(seconds))
        assert (cost.p50_ms, cost.p99_ms) == pytest.approx(tuple(1000 * np.quantile(seconds, [0.5, 0.99])))
        assert cost.peak_memory_bytes is None or 2**26 < cost.peak_memory_bytes < 2**36
    sizes = {system.name: system.efficiency.index_bytes_per_document for system in timed if system.efficiency}
    assert sizes["cosine"] == sizes[TEACHER] == sizes["MixLM k=1"] == sizes["MixLM k=4, best 2 in full"] / 4


def test_queries_are_sliced_whole(evaluated: Evaluated) -> None:
    for system in evaluated[1].systems:
        for of in ("query length", "length of the relevant documents"):
            parts = [part for part in system.slices if part.of == of]
            assert sum(part.queries for part in parts) == 7 and len(parts) > 1
            total = sum(part.value * part.queries for part in parts)
            assert total == pytest.approx(sum(system.per_query["nDCG@10"].values()))


@pytest.mark.parametrize("name", ["MixLM k=4", "cosine", "full-text mode", "judge-1"])
def test_the_depth_curve_is_what_reranking_at_each_depth_gives(
    work: Workplace,
    stage: RunFile,
    tiny: Callable[..., MixLM],
    cross_encoder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(harness, "DEPTHS", (1, 2, 4))
    model = tiny("bert")
    make: Mapping[str, Callable[[], System]] = {
        "MixLM k=4": lambda: TokenReranker(model),
        "cosine": lambda: Cosine(model),
        "full-text mode": lambda: FullTextMode(model),
        "judge-1": lambda: CrossEncoder(str(cross_encoder())),
    }
    (_, whole, _) = evaluate_collection(work, stage, [make[name]()], measures=["AP"], depth=6).systems
    really = {}
    for depth in (1, 2, 4, 6):
        cut = evaluate_collection(work, stage, [make[name]()], measures=["AP"], depth=depth)
        really[depth] = by_name(cut)[name].measures["AP"]
    assert whole.depth_curve == pytest.approx(really)
    assert len(set(really.values())) == 4


def test_systems_that_look_at_other_candidates_have_no_depth_curve(evaluated: Evaluated) -> None:
    with_curve = {system.name for system in evaluated[1].systems if system.depth_curve}
    pointwise = {"MixLM k=2 [a]", "MixLM k=2 [b]", "MixLM k=1", "cosine", "full-text mode"}
    assert with_curve == pointwise


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"baseline": "BM25"}, ["baseline 'BM25'", "first stage, cosine, oracle"]),
        ({"teacher": "Cosine"}, ["teacher 'Cosine'", "first stage, cosine, oracle"]),
        ({"measures": ["AP", "nDGC@10"]}, ["unknown measure 'nDGC@10'"]),
        ({"depth": 0}, ["depth must be at least 1, not 0"]),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    work: Workplace, stage: RunFile, tiny: Callable[..., MixLM], options: dict[str, Any], told: list[str]
) -> None:
    spy = Spy(Cosine(tiny("bert")))
    with pytest.raises(InputError) as raised:
        evaluate_collection(work, stage, [spy], **{"measures": ["AP"], **options})
    assert [part for part in told if part not in str(raised.value)] == []
    assert spy.prepared == 0 and not work.folder.exists()


@pytest.mark.parametrize("names", [("a", "a"), ("k=1", "K=1"), ("a b", "a-b"), ("oracle",), ("First stage",)])
def test_no_two_systems_share_a_name_or_a_file(
    work: Workplace, stage: RunFile, tiny: Callable[..., MixLM], names: Sequence[str]
) -> None:
    systems = [Spy(Cosine(tiny("bert"))) for _ in names]
    for system, name in zip(systems, names, strict=True):
        system.name = name  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"different names.*: first stage, {', '.join(names)}, oracle"):
        evaluate_collection(work, stage, systems, measures=["AP"])


@pytest.mark.parametrize(("name", "file"), [("été_2 [模型]", "été_2-模型"), ("../a/b", "a-b"), ("x + 0.2", "x-0.2")])
def test_a_name_in_any_language_makes_a_file_name(name: str, file: str) -> None:
    assert slug(name) == file


@pytest.mark.parametrize("system", ["MixLM", "verify", "cosine", "full text", "plain full text", "CE", "BE"])
def test_without_documents_systems_that_need_them_say_so(
    work: Workplace,
    stage: RunFile,
    tiny: Callable[..., MixLM],
    checkpoint: Callable[..., Path],
    cross_encoder: Callable[..., Path],
    system: str,
) -> None:
    model = tiny("bert")
    make: Mapping[str, Callable[[], System]] = {
        "MixLM": lambda: TokenReranker(model),
        "verify": lambda: Cascade(model, 2),
        "cosine": lambda: Cosine(model),
        "full text": lambda: FullTextMode(model),
        "plain full text": lambda: FullTextMode(tiny("bert", residual="none")),
        "CE": lambda: CrossEncoder(str(cross_encoder())),
        "BE": lambda: BiEncoder(str(checkpoint("bert"))),
    }
    without = replace(work.collection, corpus=None)
    with pytest.raises(InputError, match="tiny has no documents for .*: give its corpus"):
        evaluate_collection(replace(work, collection=without), stage, [make[system]()], measures=["AP"])


def test_a_system_that_needs_no_documents_does_without(work: Workplace, stage: RunFile) -> None:
    class Backwards:
        name = description = "backwards"
        kind, tokens, pointwise, seed_group = "other", None, True, None

        def prepare(self, work: Workplace) -> None:
            pass

        def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
            turned = enumerate(reversed(candidates), 1)
            return [ScoredDoc(hit.docid, -float(row), row, hit.score) for row, hit in turned]

    without = replace(work.collection, corpus=None)
    result = evaluate_collection(replace(work, collection=without), stage, [Backwards()], measures=["AP"])
    assert result.documents is None
    turned, found = (ranking_of(work.folder, name) for name in ("backwards", "first stage"))
    assert {qid: [hit.docid for hit in hits] for qid, hits in turned.items()} == {
        qid: [hit.docid for hit in reversed(hits)] for qid, hits in found.items()
    }


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("q1 Q0 d1 1 2 x\nq1 Q0 zz 2 1 x\nq2 Q0 yy 1 1 x\n", "2 candidates of run file other.trec are no documents of"),
        ("q1 Q0 zz 1 2 x\n", "1 candidates of run file other.trec are no documents of tiny ('zz' ...)"),
        ("q8 Q0 d1 1 2 x\n", "no query of"),
    ],
)
def test_a_run_of_another_collection_is_refused(work: Workplace, tmp_path: Path, rows: str, told: str) -> None:
    (tmp_path / "other.trec").write_text(rows)
    with pytest.raises(InputError) as raised:
        find_candidates(work, RunFile(tmp_path / "other.trec"), 10)
    assert told in str(raised.value) and "do they belong together?" in str(raised.value)


def test_a_first_stage_that_finds_nothing_is_named(work: Workplace) -> None:
    class Nothing(FirstStage):
        name = "nothing at all"

        def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
            return {}

    with pytest.raises(InputError, match="nothing at all finds no candidates for any query of tiny"):
        find_candidates(work, Nothing(), 10)


CHANGES = ["nothing", "weights", "prompt length", "depth", "a text", "a query", "a score", "a judgment"]


@pytest.mark.parametrize("change", CHANGES)
def test_rankings_are_made_anew_where_what_they_depend_on_has_changed(
    work: Workplace, stage: RunFile, tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path, change: str
) -> None:
    tiny("bert").save_pretrained(tmp_path / "model")
    before, model = (MixLM.from_pretrained(tmp_path / "model", device="cpu") for _ in range(2))
    rank(FullTextMode(before), find_candidates(work, stage, 6), work)
    collection, depth = work.collection, 6
    if change == "weights":
        model.readout.score.weight.data *= -1
    elif change == "prompt length":
        model.config = replace(model.config, max_query_tokens=32)
    elif change == "depth":
        depth = 5
    elif change == "a text":
        collection = replace(collection, corpus=[*documents[:5], replace(documents[5], text="No mail.")])
    elif change == "a query":
        collection = replace(collection, queries={**collection.queries, "q7": "no"})
    elif change == "a score":
        (tmp_path / "run.trec").write_text(stage.path.read_text().replace(" 1 14.697 ", " 1 99.000 ", 1))
        stage = RunFile(tmp_path / "run.trec")
    elif change == "a judgment":
        collection = replace(collection, qrels={**collection.qrels, "q7": {"d5": 2}})
    work = replace(work, collection=collection)
    spy = Spy(FullTextMode(model))
    candidates = find_candidates(work, stage, depth)
    found = rank(spy, candidates, work)
    if change in ("nothing", "a judgment"):
        assert (spy.prepared, spy.asked) == (0, [])
    else:
        assert len(spy.asked) == 7  # the warm-up too
    alone = FullTextMode(model)
    alone.prepare(work)
    for qid, hits in candidates.of_query.items():
        expected = alone.rank(collection.queries[qid], hits)
        assert [doc.docid for doc in found.ranking[qid]] == [doc.docid for doc in expected]
        assert {doc.first_stage_score for doc in found.ranking[qid]} == {hit.score for hit in hits}


def test_killed_again_and_again_it_goes_on_where_it_stopped(
    work: Workplace, stage: RunFile, tiny: Callable[..., MixLM], evaluated: Evaluated
) -> None:
    """Real kills of a child process: what was recorded stays byte for byte, and is not ranked again."""
    model = tiny("bert")

    def systems(dying: int | None = None, after: int = 0) -> list[Spy]:
        both = (Cosine(model), FullTextMode(model))
        return [Spy(system, after if place == dying else None) for place, system in enumerate(both)]

    def recorded() -> list[bytes]:
        """Whole lines of both records."""
        files = [work.folder / f"{slug(system.name)}.jsonl" for system in systems()]
        texts = [path.read_bytes() if path.exists() else b"" for path in files]
        return [line for text in texts for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

    kept: list[bytes] = []
    # the system that dies, after how many queries of its own, the warm-up among them; queries recorded then
    for dying, after, done in ((0, 0, 0), (0, 3, 2), (0, 2, 3), (1, 1, 6), (1, 3, 8), (1, 3, 10)):
        child = os.fork()
        if not child:
            try:
                evaluate_collection(work, stage, systems(dying, after), measures=["AP"], depth=6)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert recorded()[: len(kept)] == kept
        kept = recorded()
        assert sum(line.startswith(b'{"qid"') for line in kept) == done
    last = systems()
    result = evaluate_collection(work, stage, last, measures=["AP"], depth=6)
    assert recorded()[: len(kept)] == kept
    assert [len(spy.asked) for spy in last] == [0, 1 + 2]
    assert last[1].asked[0] == last[1].asked[1]  # the warm-up is no finished query either
    for system in result.systems:
        assert ranking_of(work.folder, system.name) == ranking_of(evaluated[0], system.name)
    assert all(system.efficiency is None or system.efficiency.p50_ms > 0 for system in result.systems)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak is told here")
def test_peak_memory_is_that_since_its_reset() -> None:
    reset_peak_memory()
    before = peak_memory() or 0
    block = np.ones(100 * 2**20, dtype=np.uint8)
    peak = peak_memory() or 0
    assert 50 * 2**20 < peak - before < 400 * 2**20  # 100 MB; the system may have taken other pages back
    del block
    assert (peak_memory() or 0) > peak - 2**22  # the system counts in batches
    reset_peak_memory()
    assert (peak_memory() or 0) < peak - 50 * 2**20


def test_the_machine_is_told() -> None:
    found = machine()
    assert {"processor", "cores", "python", "torch"} <= found.keys()
    assert all(found.values()) and int(found["cores"]) >= 1


def test_with_candidates_only_nothing_else_is_encoded_and_rankings_stay(
    work: Workplace, tmp_path: Path, tiny: Callable[..., MixLM]
) -> None:
    run = tmp_path / "two.trec"
    run.write_text("q1 Q0 d2 1 2.0 x\nq1 Q0 d1 2 1.0 x\nq2 Q0 d1 1 1.0 x\n")
    systems = [TokenReranker(tiny("bert")), Cosine(tiny("bert"))]
    whole, some = (
        evaluate_collection(
            Workplace(work.collection, tmp_path / name, tmp_path / name, progress=False),
            RunFile(run),
            systems,
            measures=MEASURES,
            candidates_only=name == "some",
        )
        for name in ("whole", "some")
    )
    assert whole.documents == some.documents == 6
    for name in ("MixLM-k=4.trec", "cosine.trec"):
        assert (tmp_path / "some" / name).read_text() == (tmp_path / "whole" / name).read_text()
    sizes = {name: len(TokenIndex(next((tmp_path / name).glob("tokens-*-*[!n]")))) for name in ("whole", "some")}
    assert sizes == {"whole": 6, "some": 2}
