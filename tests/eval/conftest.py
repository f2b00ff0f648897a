"""Evaluations to read: parts to build small ones by hand, and one of a usual size
with made-up, plausible numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import pytest

from mixlm_rerank.eval import Comparison, Fidelity, compare
from mixlm_rerank.eval.results import CollectionResult, Evaluation, Example, Shown, Slice, SystemResult
from mixlm_rerank.systems.protocol import Efficiency, Kind

MakeSystem = Callable[..., SystemResult]
MakeCollection = Callable[..., CollectionResult]
MakeEvaluation = Callable[..., Evaluation]


def a_system(name: str, values: Mapping[str, float], **changes: object) -> SystemResult:
    """A system with nothing but its nDCG@10 on each query; ``changes`` fill in the rest."""
    plain = SystemResult(
        name=name,
        description=f"{name}, exactly",
        measures={"nDCG@10": fmean(values.values())},
        per_query={"nDCG@10": dict(values)},
        efficiency=None,
        comparison=None,
        fidelity=None,
        tokens=None,
        seed_group=None,
        depth_curve={},
        slices=[],
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def a_collection(name: str, systems: Sequence[SystemResult], **changes: object) -> CollectionResult:
    queries = len(systems[0].per_query["nDCG@10"])
    plain = CollectionResult(name, 1000, queries, "BM25", 100, systems[0].name, None, list(systems), [])
    return replace(plain, **changes)  # type: ignore[arg-type]


def an_evaluation(*collections: CollectionResult, **changes: object) -> Evaluation:
    plain = Evaluation(
        created="2026-11-23T14:05:00",
        command="mixlm-rerank eval report tasks.yaml",
        version="0.1.0",
        machine={"processor": "Epyc", "cores": "2", "memory": "8 GB"},
        measures=["nDCG@10"],
        collections=list(collections),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_system() -> MakeSystem:
    return a_system


@pytest.fixture(scope="session")
def make_collection() -> MakeCollection:
    return a_collection


@pytest.fixture(scope="session")
def make_evaluation() -> MakeEvaluation:
    return an_evaluation


@pytest.fixture(scope="session")
def realistic() -> Evaluation:
    return realistic_evaluation()


MEASURES = ["nDCG@10", "RR@10", "AP", "R@100", "Judged@10"]
#         name, documents, queries, BM25's nDCG@10, how far a reranker gets from there to 1
COLLECTIONS = [
    ("SciFact", 5_183, 300, 0.68, 0.30),
    ("NFCorpus", 3_633, 150, 0.32, 0.12),
    ("FiQA", 57_638, 200, 0.24, 0.24),
    ("TREC-COVID", 171_332, 50, 0.60, 0.45),
    ("ArguAna", 8_674, 250, 0.40, 0.05),
    ("Touché-2020", 382_545, 49, 0.44, -0.18),
]
#       name, kind, tokens, share of the cross-encoder's gain, documents/s, bytes a document, seed group
SYSTEMS: list[tuple[str, Kind, int | None, float, float | None, float | None, str | None]] = [
    ("BM25", "first stage", None, 0.0, None, None, None),
    ("cosine", "bi-encoder", None, 0.35, 61_000, 388.0, None),
    ("cross-encoder", "full text", None, 1.0, 142, None, None),
    ("cross-encoder, 64 tokens", "full text", None, 0.62, 610, None, None),
    ("MixLM k=1", "MixLM", 1, 0.55, 19_800, 388.0, None),
    ("MixLM k=2", "MixLM", 2, 0.72, 15_100, 774.0, None),
    ("MixLM k=4 seed 1", "MixLM", 4, 0.87, 10_400, 1546.0, "MixLM k=4"),
    ("MixLM k=4 seed 2", "MixLM", 4, 0.84, 10_300, 1546.0, "MixLM k=4"),
    ("MixLM k=4 seed 3", "MixLM", 4, 0.89, 10_450, 1546.0, "MixLM k=4"),
    ("MixLM k=8", "MixLM", 8, 0.93, 6_400, 3090.0, None),
    ("MixLM, full text", "full text", None, 0.97, 150, None, None),
    ("MixLM k=4, top 20 read in full", "combination", None, 0.98, 690, 1546.0, None),
    ("MixLM k=4 + 0.2 BM25", "combination", None, 0.95, 10_200, 1546.0, None),
    ("oracle", "oracle", None, 0.0, None, None, None),
]
WORDS = (
    "the risk of heart disease falls with moderate exercise while studies in mice show that vitamin intake changes "
    "gene expression in liver cells and a randomised trial of older adults found no effect on memory after two years "
    "of treatment because dose and duration differed between groups"
).split()


def realistic_evaluation() -> Evaluation:
    """Six collections, fourteen systems (three of them seeds of one): every part of a report has something to show."""
    rng = random.Random(7)
    collections = [_collection(rng, *row) for row in COLLECTIONS]
    machine = {
        "processor": "AMD EPYC 9454P",
        "cores": "2",
        "memory": "8.0 GB",
        "accelerator": "none",
        "python": "3.11.9",
        "torch": "2.13.0",
        "threads": "2",
    }
    return Evaluation(
        "2026-11-23T14:05:00+00:00",
        "mixlm-rerank eval report --collection DATA/scifact --collection DATA/nfcorpus --depth 100 --output report",
        "0.1.0",
        machine,
        MEASURES,
        collections,
    )


def _collection(
    rng: random.Random, name: str, documents: int, queries: int, base: float, gain: float
) -> CollectionResult:
    qids = [f"q{number}" for number in range(queries)]
    first = {qid: min(1.0, max(0.0, rng.gauss(base, 0.3))) for qid in qids}
    per_system = {}
    for system, kind, _, share, *_ in SYSTEMS:
        spread = 0.0 if kind == "first stage" else 0.28
        per_system[system] = {
            qid: min(1.0, max(0.0, value + share * gain * (1 - base) * 1.3 + rng.gauss(0, spread)))
            for qid, value in first.items()
        }
    per_system["oracle"] = {qid: min(1.0, max(rows[qid] for rows in per_system.values()) + 0.05) for qid in qids}
    compared = {row.system: row for row in compare(per_system, "BM25", permutations=500)}
    systems = [_system(rng, row, per_system[row[0]], compared.get(row[0]), documents) for row in SYSTEMS]
    examples = [
        _example(rng, qid, per_system[system][qid], first[qid], system)
        for system in ("MixLM k=8",)
        for qid in sorted(qids, key=lambda q: first[q] - per_system["MixLM k=8"][q])[:2]
        + sorted(qids, key=lambda q: per_system["MixLM k=8"][q] - first[q])[:2]
    ]
    return CollectionResult(name, documents, queries, "BM25", 100, "BM25", "cross-encoder", systems, examples)


def _system(
    rng: random.Random,
    row: tuple[str, Kind, int | None, float, float | None, float | None, str | None],
    values: dict[str, float],
    comparison: Comparison | None,
    documents: int,
) -> SystemResult:
    name, kind, tokens, share, speed, size, seed_group = row
    mean = fmean(values.values())
    measures = dict(
        zip(MEASURES, (mean, mean * 0.95, mean * 0.7, min(1.0, mean + 0.25), 0.9 - 0.1 * share), strict=True)
    )
    speed = speed and speed * rng.uniform(0.85, 1.15)
    built = size and documents / 850 * rng.uniform(0.9, 1.1)
    start = mean - share * 0.1
    curve = {depth: start + (mean - start) * math.log(depth) / math.log(100) for depth in (1, 5, 10, 20, 50, 100)}
    slices = [
        Slice(of, label, max(1, len(values) // parts), min(1.0, max(0.0, mean + shift + rng.gauss(0, 0.02))))
        for of, parts, kinds in (
            ("query length", 3, (("1 to 5 words", -0.04), ("6 to 10 words", 0.01), ("11 words and more", 0.03))),
            (
                "document length",
                3,
                (("up to 100 words", 0.03), ("101 to 250 words", 0.0), ("251 words and more", -0.05)),
            ),
        )
        for label, shift in kinds
    ]
    ranked = kind not in ("first stage", "oracle")
    return SystemResult(
        name,
        f"{name}: all-MiniLM-L6-v2, at most 256 tokens of text, fp32, fingerprint 3fa94c{len(name):02d}",
        measures,
        {"nDCG@10": values},
        Efficiency(speed, 100_000 / speed, 135_000 / speed, 1_430_000_000, size, built) if speed else None,
        comparison,
        None if name == "cross-encoder" else Fidelity(0.4 + share / 2, 0.4 + share / 2.1, share * 0.9, share * 0.85),
        tokens,
        seed_group,
        curve if ranked else {},
        slices,
        kind,
    )


def _example(rng: random.Random, qid: str, value: float, baseline_value: float, system: str) -> Example:
    def sentence(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    def shown(rank: int) -> Shown:
        return Shown(f"{rng.randrange(10**7)}", rng.choice([None, 0, 0, 1, 2]), sentence(rng.randint(20, 160)) + ".")

    query = sentence(rng.randint(4, 14)) + "?"
    return Example(
        qid, query, system, value, baseline_value, [shown(r) for r in range(3)], [shown(r) for r in range(3)]
    )
