"""The untrained teacher: each part by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.collections import open_collection
from mixlm_rerank.eval.first_stages import RunFile
from mixlm_rerank.eval.hybrid import BM25Scores, HybridTeacher, HybridWeights, max_sim
from mixlm_rerank.eval.ranked import find_candidates, rank
from mixlm_rerank.eval.specs import make_systems, unique
from mixlm_rerank.eval.workplace import Workplace
from mixlm_rerank.scoring import BiEncoderScorer

TEXTS = ["a dog barks at the moon", "cats sleep", "the moon is a rock that goes round the earth", "bread"]
QUERIES = ["moon dogs", "bread", "who sleeps on the earth"]


def test_max_sim_by_hand() -> None:
    """Two words between special tokens; documents of one and two positions."""
    query = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    one, two = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, -1.0]])
    half = 0.5**0.5
    torch.testing.assert_close(max_sim(query, [one, two]), torch.tensor([0.5, half]))
    torch.testing.assert_close(max_sim(query[:2], [one]), torch.tensor([(half + 1) / 2]))


def test_padding_is_never_the_best_match() -> None:
    query, short, long = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]]), torch.ones(5, 2)
    assert max_sim(query, [short, long])[0] == -1


def scores(teacher: HybridTeacher) -> torch.Tensor:
    return torch.from_numpy(np.stack([teacher.score(query, TEXTS) for query in QUERIES]))


def test_cosine_part_is_the_bi_encoders(fresh: Callable[..., MixLM]) -> None:
    model = fresh()
    found = scores(HybridTeacher(model.item_encoder, TEXTS, HybridWeights(cosine=2.0, max_sim=0.0, bm25=0.0)))
    tokens = torch.from_numpy(model.encode(TEXTS))
    expected = torch.stack([BiEncoderScorer(model).score(query, tokens) for query in QUERIES])
    torch.testing.assert_close(found, 2 * expected, atol=1e-3, rtol=0)


def test_parts_add_up_and_a_pair_scores_the_same_in_any_company(fresh: Callable[..., MixLM]) -> None:
    encoder = fresh("modernbert").item_encoder
    parts = [HybridWeights(3.0, 0.0, 0.0), HybridWeights(0.0, 5.0, 0.0), HybridWeights(0.0, 0.0, 7.0)]
    together = scores(HybridTeacher(encoder, TEXTS, HybridWeights(3.0, 5.0, 7.0)))
    apart = sum(scores(HybridTeacher(encoder, TEXTS, part)) for part in parts)
    torch.testing.assert_close(together, apart)
    alone = HybridTeacher(encoder, TEXTS, HybridWeights(3.0, 5.0, 7.0)).score(QUERIES[2], TEXTS[1:2])
    assert alone[0] == pytest.approx(together[2, 1].item(), abs=1e-3)  # states are kept in float16


def test_many_queries_with_documents_of_their_own_score_as_each_alone(fresh: Callable[..., MixLM]) -> None:
    teacher = HybridTeacher(fresh().item_encoder, TEXTS, HybridWeights(3.0, 5.0, 7.0))
    own = [TEXTS[:1], TEXTS[1:4], [TEXTS[3], TEXTS[0]]]
    for query, texts, found in zip(QUERIES, own, teacher.score_batch(QUERIES, own), strict=True):
        np.testing.assert_allclose(found, teacher.score(query, texts), atol=1e-4)


def test_bm25_is_a_share_of_the_best_in_the_corpus() -> None:
    scores = BM25Scores([*TEXTS, "a dog and the moon"])(["dog moon", "bread", "unknown words"], TEXTS)
    assert scores[0, 0] > scores[0, 2] > scores[0, 1] == 0
    assert scores[0, 0] < 1 == scores[1, 3]  # the best of the first query is not among these
    assert not scores[2].any()


def test_documents_of_another_corpus_are_refused() -> None:
    with pytest.raises(InputError, match="'something else' ... is not in the corpus"):
        BM25Scores(TEXTS)(["dog"], ["something else"])
    with pytest.raises(InputError, match="no documents"):
        BM25Scores([])


def test_as_a_system_it_ranks_as_it_teaches(beir: Path, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Each document is read once, whatever the query."""
    folder = str(checkpoint("bert", max_position_embeddings=300))
    collection = open_collection(str(beir), "test")
    work = Workplace(collection, tmp_path, tmp_path, False)
    (system,) = unique(make_systems(f"hybrid:{folder}", {}))
    candidates = find_candidates(work, RunFile(beir / "run.trec"), 100)
    ranking = rank(system, candidates, work).ranking
    encoder = MixLM.from_backbones(folder, folder, tokens=1).item_encoder
    teacher = HybridTeacher(encoder, [document.content for document in collection.corpus or ()])
    for qid, hits in candidates.of_query.items():
        docids = [hit.docid for hit in hits]
        taught = teacher.score(collection.queries[qid], [candidates.texts[docid] for docid in docids]).tolist()
        expected = dict(zip(docids, taught, strict=True))
        found = {hit.docid: hit.score for hit in ranking[qid]}
        assert found == pytest.approx(expected, abs=0.05)  # states are kept in float16
