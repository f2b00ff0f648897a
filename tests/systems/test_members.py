"""The untrained teacher: each part by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel
from typer.testing import CliRunner

from mixlm_rerank import Candidate, MixLM
from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval import evaluate
from mixlm_rerank.eval.weights import Development, fit_ensemble
from mixlm_rerank.scoring import BiEncoderScorer
from mixlm_rerank.systems.collections import open_collection
from mixlm_rerank.systems.first_stages import RunFile
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.members import (
    DEFAULT_WEIGHTS,
    BM25Scores,
    Members,
    check_members,
    read_members,
    weighted_sum,
)
from mixlm_rerank.systems.protocol import by_score
from mixlm_rerank.systems.ranked import Candidates, find_candidates, rank
from mixlm_rerank.systems.sentence_transformers import CrossEncoder
from mixlm_rerank.systems.specs import make_systems, unique
from mixlm_rerank.systems.token_states import TokenStates, max_sim
from mixlm_rerank.systems.workplace import Workplace

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


def test_cosine_is_the_bi_encoders(fresh: Callable[..., MixLM]) -> None:
    model = fresh()
    states = TokenStates(model.item_encoder)
    found = np.stack(states.cosine(QUERIES, [TEXTS] * len(QUERIES)))
    tokens = torch.from_numpy(model.encode(TEXTS))
    expected = torch.stack([BiEncoderScorer(model).score(query, tokens) for query in QUERIES])
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-3, rtol=0)  # states are kept in float16


def test_members_add_up_and_a_pair_scores_the_same_in_any_company(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("bert", max_position_embeddings=300)
    weights = {f"bi-encoder:{folder}": 3.0, f"max-sim:{folder}": 5.0, "bm25": 7.0}
    members = Members(weights).of(TEXTS, "corpus")
    together = partial(weighted_sum, members, weights.values())
    own = [TEXTS[:1], TEXTS[1:4], [TEXTS[3], TEXTS[0]]]
    parts = [member.score_batch(QUERIES, own) for member in members]
    found = together(QUERIES, own)
    for row, query in enumerate(QUERIES):
        expected = sum(weight * part[row] for weight, part in zip(weights.values(), parts, strict=True))
        np.testing.assert_allclose(found[row], expected, atol=1e-5)
        np.testing.assert_allclose(together([query], own[row : row + 1])[0], found[row], atol=1e-4)


def test_members_in_bfloat16_score_nearly_the_same_and_are_told_apart(checkpoint: Callable[..., Path]) -> None:
    """Half the time where the processor knows bfloat16; stored scores of the one must not pass for the other's."""
    folder = checkpoint("bert", max_position_embeddings=300)
    word = f"max-sim:{folder}"
    (plain,), (fast,) = (Members([word], Loading(None, dtype)).of([], "") for dtype in ("float32", "bfloat16"))
    own = [TEXTS] * len(QUERIES)
    found, expected = np.stack(fast.score_batch(QUERIES, own)), np.stack(plain.score_batch(QUERIES, own))
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert not np.array_equal(found, expected)
    assert fast.fingerprint != plain.fingerprint
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)  # nothing left to be rounded
    (plain,), (fast,) = (Members([word], Loading(None, dtype)).of([], "") for dtype in ("float32", "bfloat16"))
    assert fast.fingerprint != plain.fingerprint


def test_a_cross_encoder_is_a_member(cross_encoder: Callable[..., Path]) -> None:
    judge = cross_encoder()
    (member,) = Members([f"cross-encoder:{judge}"]).of([], "")
    (found,) = member.score_batch(QUERIES[:1], [TEXTS])
    np.testing.assert_allclose(found, CrossEncoder(str(judge)).score_batch(QUERIES[:1], [TEXTS])[0], atol=1e-6)


def test_what_scores_depend_on_is_in_their_hash(checkpoint: Callable[..., Path]) -> None:
    words = [f"max-sim:{checkpoint('bert')}", f"max-sim:{checkpoint('bert', hidden=32)}", "bm25"]
    fingerprints = [[member.fingerprint for member in Members(words).of([], corpus)] for corpus in ("one", "another")]
    assert len({*fingerprints[0]}) == 3
    assert [one == other for one, other in zip(*fingerprints, strict=True)] == [True, True, False]


@pytest.mark.parametrize("word", ["max-sim", "bi-encoder:", "cosine:x", "bm25:x", "cross-encoder", "max_sim:x"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=f"no such member of a teacher: '{word}'. There are: max-sim:NAME"):
        check_members([word])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("members: {bm25: much}", "does not hold members and their weights"),
        ("[bm25]", "does not hold members and their weights"),
        ("members: {bm25: 1", "does not hold members and their weights"),
        ("members: {bm26: 1}", "no such member of a teacher: 'bm26'"),
    ],
)
def test_files_that_hold_no_members_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "teacher.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_members(path)
    with pytest.raises(InputError, match="no such file"):
        read_members(tmp_path / "gone.yaml")


def test_bm25_is_a_share_of_the_best_in_the_corpus() -> None:
    scores = BM25Scores([*TEXTS, "a dog and the moon"])(["dog moon", "bread", "unknown words"], [TEXTS] * 3)
    assert scores[0][0] > scores[0][2] > scores[0][1] == 0
    assert scores[0][0] < 1 == scores[1][3]  # the best of the first query is not among these
    assert not scores[2].any()


def test_documents_of_another_corpus_are_refused() -> None:
    with pytest.raises(InputError, match="'something else' ... is not in the corpus"):
        BM25Scores(TEXTS)(["dog"], [["something else"]])
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
    members = Members([f"max-sim:{folder}", "bm25"]).of([doc.content for doc in collection.corpus or ()], "")
    for qid, hits in candidates.of_query.items():
        docids = [hit.docid for hit in hits]
        texts = [candidates.texts[docid] for docid in docids]
        (taught,) = weighted_sum(members, DEFAULT_WEIGHTS.values(), [collection.queries[qid]], [texts])
        found = {hit.docid: hit.score for hit in ranking[qid]}
        assert found == pytest.approx(dict(zip(docids, taught.tolist(), strict=True)), abs=0.05)  # kept in float16


def test_weights_are_fitted_on_development_queries(
    beir: Path, checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they are no worse than the best; what is written is a teacher, and a system."""
    folder, output, weights = checkpoint("bert", max_position_embeddings=300), tmp_path / "dev", tmp_path / "both.yaml"
    stage = f"--first-stage run:{beir}/run.trec --quiet"
    command = f"eval teacher {beir}@test --members max-sim:{folder},bm25 --weights {weights} --output {output} {stage}"
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    values = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    single, lexical, together = values.values()
    assert together >= max(single, lexical) and f"max-sim:{folder}" in values
    assert read_members(weights).keys() == {f"max-sim:{folder}", "bm25"}
    (system,) = unique(make_systems(f"ensemble:{weights}", {}))
    work = Workplace(open_collection(str(beir), "test"), tmp_path, tmp_path, False)
    candidates = find_candidates(work, RunFile(beir / "run.trec"), 100)
    ranking = rank(system, candidates, work).ranking
    assert system.name == "both"
    assert evaluate(work.collection.qrels, ranking, ["nDCG@10"])["nDCG@10"] == pytest.approx(together, abs=1e-3)


def test_a_fit_by_hand() -> None:
    """One member is right about one query, the other about the other: only their sum is right about both."""
    hits = [Candidate("good", 2.0), Candidate("bad", 1.0)]
    candidates = Candidates("first", 2, {"q1": hits, "q2": hits}, {})
    qrels = {"q1": {"good": 1}, "q2": {"good": 1}}

    def ranked(**margins: float) -> list[Development]:
        ranking = {qid: by_score(hits, [margin, 0.0]) for qid, margin in margins.items()}
        return [Development(candidates, ranking, qrels)]

    members = {"one": ranked(q1=3.0, q2=-1.0), "other": ranked(q1=-1.0, q2=3.0), "noise": ranked(q1=-1.0, q2=-1.0)}
    weights, value = fit_ensemble(members, "nDCG@1")
    assert value == 1.0 and weights["one"] > 0 and weights["other"] > 0
    assert fit_ensemble({"one": members["one"]}, "nDCG@1")[1] == 0.5


def test_queries_without_candidates_are_no_harm_to_a_fit() -> None:
    hits = [Candidate("good", 2.0), Candidate("bad", 1.0)]
    some, nothing = Candidates("first", 2, {"q1": hits, "q2": []}, {}), Candidates("first", 2, {"q2": []}, {})
    qrels, ranking = {"q1": {"good": 1}, "q2": {"good": 1}}, {"q1": by_score(hits, [1.0, 0.0]), "q2": []}
    member = [Development(some, ranking, qrels)]
    assert fit_ensemble({"one": member, "other": member}, "nDCG@1")[1] == 0.5
    with pytest.raises(InputError, match="finds no candidates"):
        fit_ensemble({"one": [Development(nothing, ranking, qrels)]}, "nDCG@1")
