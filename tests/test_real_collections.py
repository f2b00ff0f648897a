"""Published figures, on real collections: ``MIXLM_DATA=folder make test-all`` (BEIR folders named beir-*)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mixlm_rerank import MixLM, Reranker, TokenIndex
from mixlm_rerank.data import open_corpus, read_qrels, read_run, read_topics

DATA = Path(os.environ.get("MIXLM_DATA", "no-such-folder"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not DATA.is_dir(), reason="MIXLM_DATA names no folder with BEIR collections"),
]


@pytest.mark.parametrize(
    ("name", "bm25", "reranked"),
    [("scifact", 0.6789, 0.6696), ("nfcorpus", 0.3218, 0.3466)],
)
def test_bm25_and_the_default_model(name: str, bm25: float, reranked: float, tmp_path: Path) -> None:
    """BM25 by Pyserini, as published for it; and MixLM on the stored run, as in docs/default-model.md."""
    from mixlm_rerank.eval import evaluate
    from mixlm_rerank.integrations.lucene import bm25_run, build_lucene_index, open_searcher

    folder = DATA / f"beir-{name}"
    qrels = read_qrels(folder / "qrels" / "test.tsv")
    topics = {qid: text for qid, text in read_topics(folder).items() if qid in qrels}
    build_lucene_index(open_corpus(str(folder)), tmp_path / "lucene")
    run = bm25_run(open_searcher(tmp_path / "lucene"), topics)
    assert evaluate(qrels, run, ["nDCG@10"])["nDCG@10"] == pytest.approx(bm25, abs=0.0005)

    model = MixLM.from_pretrained("default")
    reranker = Reranker(model, TokenIndex.build(open_corpus(str(folder)), model, tmp_path / "tokens"))
    ours = reranker.rerank_batch(topics, read_run(folder / "runs" / "bm25.test.trec"))
    assert evaluate(qrels, ours, ["nDCG@10"])["nDCG@10"] == pytest.approx(reranked, abs=0.003)
