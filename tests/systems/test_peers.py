"""nDCG@10 of the harness against three peers' own checks, each with its own library, on the same candidates.

A peer is imported in its own test, so that a missing one fails that test alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from mixlm_rerank import Candidate, Document
from mixlm_rerank.data import read_run
from mixlm_rerank.eval.harness import evaluate_collection
from mixlm_rerank.eval.results import CollectionResult, SystemResult
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import RunFile
from mixlm_rerank.systems.ranked import FIRST_STAGE, slug
from mixlm_rerank.systems.sentence_transformers import CrossEncoder
from mixlm_rerank.systems.workplace import Workplace

NDCG, DEPTH = "nDCG@10", 20
WORDS = "dog cat moon mail man bread flour salt water yeast rock earth barks sleeps bakes brings fears night".split()
NONE_RELEVANT, FEW_CANDIDATES, NOT_IN_RUN = "q1", "q2", "q3"
RERANKER = "tiny"

Candidates = dict[str, list[Candidate]]


@pytest.fixture(scope="module")
def collection() -> Collection:
    """30 queries; 60 documents without titles, which BEIR joins to the text in another way; grades 0 to 3."""
    rng = random.Random(11)
    documents = [Document(f"d{number}", " ".join(rng.choices(WORDS, k=rng.randint(5, 15)))) for number in range(60)]
    queries = {f"q{number}": " ".join(rng.choices(WORDS, k=rng.randint(2, 5))) for number in range(1, 31)}
    qrels = {
        qid: {document.docid: rng.choice([0, 0, 1, 1, 2, 3]) for document in rng.sample(documents, k=40)}
        for qid in queries
    }
    qrels[NONE_RELEVANT] = dict.fromkeys(qrels[NONE_RELEVANT], 0)
    return Collection("small", documents, queries, qrels)


@pytest.fixture(scope="module")
def run(collection: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage of 25 candidates a query, many of them unjudged and some with equal scores."""
    rng = random.Random(12)
    docids = [document.docid for document in collection.corpus or ()]
    lines = []
    for qid in collection.queries:
        if qid == NOT_IN_RUN:
            continue
        chosen = rng.sample(docids, k=4 if qid == FEW_CANDIDATES else 25)
        scores = sorted((round(rng.uniform(5, 15), 1) for _ in chosen), reverse=True)
        lines += [f"{qid} Q0 {docid} 0 {score} bm25\n" for docid, score in zip(chosen, scores, strict=True)]
    path = tmp_path_factory.mktemp("run") / "bm25.trec"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def candidates(run: Path) -> Candidates:
    """What the harness ranks: its cut goes through equal scores, which stand as in the file."""
    return {qid: hits[:DEPTH] for qid, hits in read_run(run).items()}


@pytest.fixture(scope="module")
def reranker(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny cross-encoder. Its head is random whenever it is made, so it is made once."""
    import sentence_transformers

    backbone, folder = checkpoint("bert"), tmp_path_factory.mktemp("peers") / RERANKER
    torch.manual_seed(0)
    sentence_transformers.CrossEncoder(str(backbone)).save_pretrained(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the harness writes its runs."""
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def graded(collection: Collection, run: Path, reranker: str, written: Path) -> CollectionResult:
    return evaluated(collection, run, reranker, written)


def evaluated(collection: Collection, run: Path, reranker: str, folder: Path) -> CollectionResult:
    work = Workplace(collection, folder, folder, progress=False)
    return evaluate_collection(work, RunFile(run), [CrossEncoder(reranker)], measures=[NDCG], depth=DEPTH)


def system(result: CollectionResult, name: str) -> SystemResult:
    return next(found for found in result.systems if found.name == name)


def agree(peer: Callable[[Sequence[str]], float], ours: SystemResult, qids: Sequence[str]) -> None:
    """A peer's mean over all of these queries, and over each of them alone, against ours."""
    values = ours.per_query[NDCG]
    assert 0.1 < fmean(values.values()) < 0.9 and len(set(values.values())) > 20
    assert peer(qids) == pytest.approx(fmean(values[qid] for qid in qids), abs=1e-4)
    assert {qid: peer([qid]) for qid in qids} == pytest.approx({qid: values[qid] for qid in qids}, abs=1e-4)


def test_sentence_transformers_reranking_evaluator(
    collection: Collection, run: Path, candidates: Candidates, reranker: str, tmp_path: Path
) -> None:
    """It knows relevant or not, and no relevant document beyond the candidates: missed ones it would either put into
    the list or leave out of the ideal one. So the judgments are the candidates' alone here.
    """
    import sentence_transformers
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    qrels = {
        qid: {hit.docid: min(1, collection.qrels[qid].get(hit.docid, 0)) for hit in hits}
        for qid, hits in candidates.items()
    }
    seen = replace(collection, queries={qid: collection.queries[qid] for qid in qrels}, qrels=qrels)
    result = evaluated(seen, run, reranker, tmp_path)
    texts = {document.docid: document.text for document in collection.corpus or ()}
    model = sentence_transformers.CrossEncoder(reranker)
    as_found = read_run(tmp_path / "first-stage.trec")  # it takes lists as they stand: ties as trec_eval orders them

    def evaluator(qids: Sequence[str], key: str) -> float:
        samples = [
            {
                "query": collection.queries[qid],
                "positive": [texts[docid] for docid, grade in qrels[qid].items() if grade > 0],
                "documents": [texts[hit.docid] for hit in as_found[qid]],
            }
            for qid in qids
        ]
        return CrossEncoderRerankingEvaluator(samples, at_k=10, always_rerank_positives=False)(model)[key]

    agree(lambda qids: evaluator(qids, "ndcg@10"), system(result, RERANKER), list(candidates))
    agree(lambda qids: evaluator(qids, "base_ndcg@10"), system(result, FIRST_STAGE), list(candidates))


def test_beir_rerank_and_evaluate(
    collection: Collection, run: Path, candidates: Candidates, reranker: str, graded: CollectionResult
) -> None:
    """Its mean is over the queries of the run, ours over all that are judged: so only those of the run are compared."""
    from beir.reranking import Rerank
    from beir.reranking.models import CrossEncoder as BeirCrossEncoder
    from beir.retrieval.evaluation import EvaluateRetrieval

    corpus = {document.docid: {"title": "", "text": document.text} for document in collection.corpus or ()}
    results = {qid: {hit.docid: hit.score for hit in hits} for qid, hits in read_run(run).items()}
    reranked = Rerank(BeirCrossEncoder(reranker)).rerank(corpus, collection.queries, results, top_k=DEPTH)

    def beir(qids: Sequence[str]) -> float:
        ndcg, *_ = EvaluateRetrieval.evaluate(collection.qrels, {qid: reranked[qid] for qid in qids}, [10])
        return ndcg[NDCG.upper()]

    agree(beir, system(graded, RERANKER), list(candidates))


def test_pyterrier_experiment(collection: Collection, graded: CollectionResult, written: Path) -> None:
    """On the runs that the harness writes, first stage and oracle among them; all judged queries count."""
    import pandas as pd
    import pyterrier as pt
    from ir_measures import nDCG

    names = [found.name for found in graded.systems]
    runs = [pt.io.read_results(str(written / f"{slug(name)}.trec")) for name in names]
    topics = pd.DataFrame(collection.queries.items(), columns=["qid", "query"])
    judged = [(qid, docid, grade) for qid, grades in collection.qrels.items() for docid, grade in grades.items()]
    qrels = pd.DataFrame(judged, columns=["qid", "docno", "label"])
    means = pt.Experiment(runs, topics, qrels, [nDCG @ 10], names).set_index("name")[NDCG]
    per_query = pt.Experiment(runs, topics, qrels, [nDCG @ 10], names, perquery=True)
    for found in graded.systems:
        theirs = per_query[per_query.name == found.name]
        assert means[found.name] == pytest.approx(found.measures[NDCG], abs=1e-4)
        assert dict(zip(theirs.qid, theirs.value, strict=True)) == pytest.approx(found.per_query[NDCG], abs=1e-4)
