"""Candidates in, ranked documents out: order, policies for missing documents, interpolation, verification."""

from __future__ import annotations

import json
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mixlm_rerank.texts
from mixlm_rerank import Candidate, Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.arguments import as_candidates
from mixlm_rerank.errors import IndexMismatch, InputError, MissingDocuments
from mixlm_rerank.index import Fetched
from mixlm_rerank.ranking import interpolated
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer

QUERY = "a dog barks at the moon"
HITS = [("d1", 9.0), ("d2", 8.0), ("d3", 7.0), ("d4", 6.0), ("d6", 5.0)]
STRANGER = ("unknown", 8.5)


@pytest.fixture(scope="module")
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert")


@pytest.fixture(scope="module")
def index(model: MixLM, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> TokenIndex:
    folder = tmp_path_factory.mktemp("indexes") / "all"
    return TokenIndex.build(documents, model, folder, precision="float32", progress=False)


@pytest.fixture(scope="module")
def texts(documents: list[Document]) -> dict[str, str]:
    return {document.docid: document.content for document in documents} | {"unknown": "a dog that nobody knows"}


def test_documents_are_ranked_by_the_reference_scores(model: MixLM, index: TokenIndex) -> None:
    docs = Reranker(model, index).rerank(QUERY, HITS)
    tokens = torch.from_numpy(index.fetch([docid for docid, _ in HITS]).tokens)
    expected = dict(zip((d for d, _ in HITS), ReferenceScorer(model).score(QUERY, tokens).tolist(), strict=True))
    assert [doc.docid for doc in docs] == sorted(expected, key=lambda docid: -expected[docid])
    assert [doc.rank for doc in docs] == [1, 2, 3, 4, 5]
    assert all(doc.score == pytest.approx(expected[doc.docid], abs=1e-4) for doc in docs)
    assert {doc.docid: doc.first_stage_score for doc in docs} == dict(HITS)


def test_the_first_stage_order_of_the_input_does_not_matter_but_for_ties(model: MixLM, index: TokenIndex) -> None:
    reranker = Reranker(model, index)
    assert [d.docid for d in reranker.rerank(QUERY, HITS)] == [d.docid for d in reranker.rerank(QUERY, HITS[::-1])]


def test_equal_scores_keep_their_first_stage_order(model: MixLM, index: TokenIndex) -> None:
    order = ["d3", "d1", "d6", "d2"]
    docs = Reranker(model, index, first_stage_weight=1.0).rerank(QUERY, [(docid, 7.0) for docid in order])
    assert len({doc.score for doc in docs}) == 1
    assert [doc.docid for doc in docs] == order


def test_scores_are_python_floats_that_json_takes(model: MixLM, index: TokenIndex) -> None:
    for options in ({}, {"first_stage_weight": 0.5}):
        docs = Reranker(model, index, **options).rerank(QUERY, [*HITS, STRANGER])  # type: ignore[arg-type]
        assert all(type(doc.score) is float and type(doc.first_stage_score) is float for doc in docs)
        json.dumps([doc.score for doc in docs], allow_nan=False)


def test_top_k_cuts_the_ranking(model: MixLM, index: TokenIndex) -> None:
    reranker = Reranker(model, index)
    whole = reranker.rerank(QUERY, HITS)
    assert reranker.rerank(QUERY, HITS, top_k=2) == whole[:2]
    assert reranker.rerank(QUERY, HITS, top_k=99) == whole
    for top_k in (0, 2.5):
        with pytest.raises(InputError, match=f"top_k must be .*, not {top_k}"):
            reranker.rerank(QUERY, HITS, top_k=top_k)  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=6), at_once=st.integers(1, 9))
def test_a_batch_equals_one_query_at_a_time(model: MixLM, index: TokenIndex, counts: list[int], at_once: int) -> None:
    reranker = Reranker(model, index)
    queries = {f"q{i}": QUERY[: 5 + i] for i in range(len(counts))}
    hits = {f"q{i}": [*HITS[:count], STRANGER] for i, count in enumerate(counts)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mixlm_rerank.reranker.CANDIDATES_AT_ONCE", at_once)
        batch = reranker.rerank_batch(queries, hits)
    assert list(batch) == list(hits)
    for qid, docs in batch.items():
        alone = reranker.rerank(queries[qid], hits[qid])
        assert [doc.docid for doc in docs] == [doc.docid for doc in alone]
        assert [doc.score for doc in docs] == pytest.approx([doc.score for doc in alone], abs=1e-4)


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_any_budget_up_to_the_models_can_be_chosen(model: MixLM, index: TokenIndex, tokens: int) -> None:
    docs = {doc.docid: doc.score for doc in Reranker(model, index, tokens=tokens).rerank(QUERY, HITS)}
    held = torch.from_numpy(index.fetch(["d3"]).tokens)[:, -tokens:]
    assert docs["d3"] == pytest.approx(ReferenceScorer(model).score(QUERY, held).item(), abs=1e-4)


def test_missing_last_keeps_unknown_documents_below_in_first_stage_order(model: MixLM, index: TokenIndex) -> None:
    docs = Reranker(model, index).rerank(QUERY, [("u1", 99.0), *HITS, ("u2", 0.1), ("u3", 98.0)])
    assert [doc.docid for doc in docs[-3:]] == ["u1", "u2", "u3"]
    assert [doc.missing for doc in docs] == [False] * 5 + [True] * 3
    assert [doc.score for doc in docs] == sorted((doc.score for doc in docs), reverse=True)
    assert len({doc.score for doc in docs[-4:]}) == 4
    assert all(doc.score < -10_000 for doc in docs[-3:])  # nobody takes that for log-odds
    only_unknown = Reranker(model, index).rerank(QUERY, ["u1", "u2"])
    assert [doc.docid for doc in only_unknown] == ["u1", "u2"]


def test_missing_error_names_the_documents_and_the_mend(model: MixLM, index: TokenIndex) -> None:
    with pytest.raises(MissingDocuments, match="'unknown'.*\"last\"") as raised:
        Reranker(model, index, missing="error").rerank(QUERY, [*HITS, STRANGER])
    assert raised.value.docids == ["unknown"]


@pytest.mark.parametrize("precision", ["int8", "float32"])
@pytest.mark.parametrize("source", ["mapping", "function", "candidate"])
def test_missing_encode_scores_as_if_the_index_held_the_document(
    model: MixLM, texts: dict[str, str], tmp_path: Path, precision: str, source: str
) -> None:
    """To the bit: what is encoded now is quantised as the index would."""
    docs = [Document(docid, text) for docid, text in texts.items()]
    whole = TokenIndex.build(docs, model, tmp_path / "whole", precision=precision, progress=False)
    part = TokenIndex.build(docs[:3], model, tmp_path / "part", precision=precision, progress=False)
    hits: list[object] = [*HITS, STRANGER]
    given_texts: object = texts
    if source == "function":
        given_texts = lambda docids: {docid: texts[docid] for docid in docids}  # noqa: E731
    elif source == "candidate":
        given_texts, hits = None, [Candidate(docid, score, texts[docid]) for docid, score in [*HITS, STRANGER]]
    reranker = Reranker(model, part, missing="encode", texts=given_texts)  # type: ignore[arg-type]
    assert reranker.rerank(QUERY, hits) == Reranker(model, whole).rerank(QUERY, hits)
    assert reranker.rerank(QUERY, hits) == reranker.rerank(QUERY, hits)  # the second time from the cache


def test_missing_encode_without_text_is_an_error(model: MixLM, index: TokenIndex) -> None:
    with pytest.raises(MissingDocuments, match="no text was given"):
        Reranker(model, index, missing="encode").rerank(QUERY, [*HITS, STRANGER])


def test_interpolation_mixes_scaled_scores(model: MixLM, index: TokenIndex) -> None:
    alone = {doc.docid: doc.score for doc in Reranker(model, index).rerank(QUERY, HITS)}
    low, high = min(alone.values()), max(alone.values())
    docs = Reranker(model, index, first_stage_weight=0.3).rerank(QUERY, HITS)
    for doc in docs:
        expected = 0.7 * (alone[doc.docid] - low) / (high - low) + 0.3 * (dict(HITS)[doc.docid] - 5) / 4
        assert doc.score == pytest.approx(expected, abs=1e-4)
    first_stage = Reranker(model, index, first_stage_weight=1.0).rerank(QUERY, HITS)
    assert [doc.docid for doc in first_stage] == [docid for docid, _ in HITS]


def test_reciprocal_rank_fusion_adds_up_the_reciprocals_of_ranks(model: MixLM, index: TokenIndex) -> None:
    alone = [doc.docid for doc in Reranker(model, index).rerank(QUERY, HITS)]
    first = [docid for docid, _ in HITS]
    docs = Reranker(model, index, first_stage_weight="rrf").rerank(QUERY, HITS[::-1])
    expected = {docid: 1 / (61 + alone.index(docid)) + 1 / (61 + first.index(docid)) for docid in first}
    assert {doc.docid: doc.score for doc in docs} == pytest.approx(expected)
    assert [doc.docid for doc in docs] == sorted(first, key=lambda docid: (-expected[docid], -first.index(docid)))


def test_reciprocal_ranks_by_hand() -> None:
    """Ranks are those of scores, not of places; of equal scores the first is the better."""
    fused = interpolated(np.array([3.0, 1.0, 2.0]), np.array([1.0, 9.0, 9.0]), "rrf")
    assert fused.tolist() == pytest.approx([1 / 61 + 1 / 63, 1 / 63 + 1 / 61, 1 / 62 + 1 / 62])


class Lengths:
    """A cross-encoder to which shorter texts are better, whatever the query."""

    def predict(self, pairs: list[tuple[str, str]], **options: Any) -> np.ndarray:
        assert {query for query, _ in pairs} == {QUERY} and isinstance(options["activation_fn"], torch.nn.Identity)
        return np.array([-len(text) for _, text in pairs], dtype=np.float32)


def test_another_cross_encoder_reads_the_best(model: MixLM, index: TokenIndex, texts: dict[str, str]) -> None:
    before = Reranker(model, index).rerank(QUERY, HITS)
    docs = Reranker(model, index, verify_top=3, verify_with=Lengths(), texts=texts).rerank(QUERY, HITS)
    assert [doc.docid for doc in docs[:3]] == sorted(
        (doc.docid for doc in before[:3]), key=lambda docid: len(texts[docid])
    )
    assert [doc.score for doc in docs[:3]] == [-len(texts[doc.docid]) for doc in docs[:3]]
    assert [doc.docid for doc in docs[3:]] == [doc.docid for doc in before[3:]]
    assert [doc.score for doc in docs] == sorted((doc.score for doc in docs), reverse=True)


@pytest.mark.parametrize("scores", [[1.0, float("nan")], [[1.0, 2.0], [3.0, 4.0]], [1.0]], ids=str)
def test_a_cross_encoder_must_give_one_finite_score(
    model: MixLM, index: TokenIndex, texts: dict[str, str], scores: list[Any]
) -> None:
    judge = SimpleNamespace(predict=lambda pairs, **options: scores)
    with pytest.raises(InputError, match="one finite score a text: for the query 'a dog barks"):
        Reranker(model, index, verify_top=2, verify_with=judge, texts=texts).rerank(QUERY, HITS)


def test_ranks_are_counted_among_the_documents_that_were_scored(model: MixLM, index: TokenIndex) -> None:
    whole = Reranker(model, index, first_stage_weight="rrf")
    found = whole.rerank(QUERY, [("unknown", 10.0), *HITS])
    assert found[:-1] == whole.rerank(QUERY, HITS) and found[-1].missing


def test_verify_top_reorders_the_best_by_full_text(model: MixLM, index: TokenIndex, texts: dict[str, str]) -> None:
    before = Reranker(model, index).rerank(QUERY, HITS)
    docs = Reranker(model, index, verify_top=3, texts=texts).rerank(QUERY, HITS)
    top = [doc.docid for doc in before[:3]]
    tokens = torch.from_numpy(index.fetch(top).tokens)
    full = dict(zip(top, FullTextScorer(model).score(QUERY, [texts[d] for d in top], tokens).tolist(), strict=True))
    assert [doc.docid for doc in docs[:3]] == sorted(top, key=lambda docid: -full[docid])
    assert [doc.docid for doc in docs[3:]] == [doc.docid for doc in before[3:]]
    assert [doc.score for doc in docs[:3]] == pytest.approx(sorted(full.values(), reverse=True), abs=1e-4)
    assert [doc.score for doc in docs] == sorted((doc.score for doc in docs), reverse=True)
    assert [doc.rank for doc in docs] == [1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="no text of"):
        Reranker(model, index, verify_top=3).rerank(QUERY, HITS)


def test_verify_top_mixes_in_the_first_stage_alike(model: MixLM, index: TokenIndex, texts: dict[str, str]) -> None:
    """All candidates read in full, half of the weight on each: both scaled to [0, 1] and averaged."""
    docs = Reranker(model, index, verify_top=5, first_stage_weight=0.5, texts=texts).rerank(QUERY, HITS)
    full = {doc.docid: doc.score for doc in Reranker(model, index, verify_top=5, texts=texts).rerank(QUERY, HITS)}
    first = dict(HITS)
    low, high = min(full.values()), max(full.values())
    least, most = min(first.values()), max(first.values())
    expected = {
        docid: (full[docid] - low) / (high - low) / 2 + (first[docid] - least) / (most - least) / 2 for docid in first
    }
    assert [doc.docid for doc in docs] == sorted(first, key=lambda docid: -expected[docid])
    assert [doc.score for doc in docs] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_pickled_it_ranks_alike(tiny: Callable[..., MixLM], tmp_path: Path, architecture: str) -> None:
    """As it travels to a worker process: the model whole, the index as its path."""
    docs = [Document(docid, f"text of {docid}") for docid, _ in HITS]
    model = tiny(architecture)
    reranker = Reranker(model, TokenIndex.build(docs, model, tmp_path / "index", progress=False))
    assert pickle.loads(pickle.dumps(reranker)).rerank(QUERY, HITS) == reranker.rerank(QUERY, HITS)


def test_callers_hits_are_not_changed(model: MixLM, index: TokenIndex) -> None:
    hits = [SimpleNamespace(docid=docid, score=score, extra=[1]) for docid, score in HITS]
    before = [vars(hit).copy() for hit in hits]
    Reranker(model, index).rerank(QUERY, hits)
    assert [vars(hit) for hit in hits] == before


def test_a_mapping_of_scores_is_ordered_by_score() -> None:
    assert [hit.docid for hit in as_candidates({"b": 0.1, "a": 99.0})] == ["a", "b"]


def test_scores_that_are_not_finite_are_refused(model: MixLM, index: TokenIndex) -> None:
    class Broken(ReferenceScorer):
        def score(self, query: str, tokens: torch.Tensor, *titles: object) -> torch.Tensor:
            return torch.full((len(tokens),), torch.nan)

    with pytest.raises(InputError, match="not finite"):
        Reranker(model, index, scorer=Broken(model)).rerank(QUERY, HITS)


def test_no_hits_give_no_documents(model: MixLM, index: TokenIndex) -> None:
    assert Reranker(model, index).rerank(QUERY, []) == []
    assert Reranker(model, index).rerank_batch({}, {}) == {}


@pytest.mark.parametrize("query", ["", "  \n", "\u200b\ufeff\0", None, float("nan")])
@pytest.mark.parametrize("options", [{}, {"missing": "error"}, {"first_stage_weight": 0.5, "verify_top": 2}], ids=str)
def test_an_empty_query_keeps_the_first_stages_order(
    model: MixLM, index: TokenIndex, texts: dict[str, str], query: Any, options: dict[str, Any]
) -> None:
    """And ends nothing: the other queries are ranked. None and NaN are what data frames have where there is no text."""
    reranker = Reranker(model, index, texts=texts, **options)
    with pytest.warns(UserWarning) as warned:
        both = reranker.rerank_batch({"q7": query, "q8": QUERY}, {"q7": HITS, "q8": HITS})
    assert [str(each.message) for each in warned] == ["an empty query keeps the first stage's order: 'q7'"]
    assert [doc.docid for doc in both["q7"]] == [docid for docid, _ in HITS]
    assert all(doc.missing and doc.score < -10_000 for doc in both["q7"])
    assert both["q8"] == reranker.rerank(QUERY, HITS)
    with pytest.warns(UserWarning, match="an empty query"):
        assert reranker.rerank(query, HITS, 2) == both["q7"][:2]


def test_hits_without_a_query_are_an_error(model: MixLM, index: TokenIndex) -> None:
    with pytest.raises(InputError, match="no query of that qid"):
        Reranker(model, index).rerank_batch({}, {"q7": HITS})
    with pytest.raises(InputError, match="give a string, not a list"):
        Reranker(model, index).rerank(["a dog"], HITS)  # type: ignore[arg-type]


def test_a_call_that_scores_nothing_warns(model: MixLM, index: TokenIndex) -> None:
    with pytest.warns(UserWarning, match=f"none of the candidates was scored: {index} holds none of them"):
        Reranker(model, index).rerank_batch({"a": QUERY, "b": QUERY}, {"a": ["x"], "b": ["y", "z"]})
    with pytest.warns(UserWarning, match="none of the candidates was scored: their texts are empty"):
        Reranker(model).rerank(QUERY, [Candidate("x", 0.0, " ")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Reranker(model, index).rerank_batch({"a": QUERY, "b": QUERY}, {"a": ["x"], "b": ["y", "d1"]})
        Reranker(model, index).rerank(QUERY, [])


def test_tokens_of_one_group_of_queries_are_held_at_a_time(
    model: MixLM, index: TokenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    class Watched:
        manifest = index.manifest

        def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
            alive.append(sum(each() is not None for each in held))
            found = index.fetch(docids, tokens)
            held.append(weakref.ref(found.tokens if found.tokens.base is None else found.tokens.base))
            return found

    monkeypatch.setattr("mixlm_rerank.reranker.CANDIDATES_AT_ONCE", 1)
    qids = [f"q{number}" for number in range(5)]
    Reranker(model, Watched()).rerank_batch(dict.fromkeys(qids, QUERY), dict.fromkeys(qids, HITS))
    assert alive == [0] * len(qids)


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        ("d1", "a list of hits, not 'd1'"),
        ([("d1", float("nan"))], "not finite"),
        ([("d1", float("inf"))], "not finite"),
        ([("d1", "high")], "not a number"),
        ([("d1", 1.0), ("d2", 0.9), ("d1", 0.5)], "'d1' occurs twice"),
        ([42], "hit 0 is a int"),
        ([None], "hit 0 is a NoneType"),
        ([("d1", 1.0), (None, 0.5)], r"hit 1 has no docid \(None\)"),
        ([(float("nan"), 0.5)], r"hit 0 has no docid \(nan\)"),
        ([("", 0.5)], r"hit 0 has no docid \(''\)"),
        ([("d1", 10**400)], "not a number"),
        ({"a": "x"}, r"hit 0 \('a'\): the score 'x' is not a number"),
    ],
)
def test_malformed_hits_are_named(hits: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_candidates(hits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "ignore"}, "missing must be"),
        ({"tokens": 5}, "between 1 and 4"),
        ({"tokens": 0}, "between 1 and 4"),
        ({"tokens": 2.5}, "a whole number between 1 and 4 .* not 2.5"),
        ({"verify_top": 2.5}, "verify_top must be a whole number, not 2.5"),
        ({"texts": "corpus.jsonl"}, "texts must be a mapping docid -> text or a function, not 'corpus.jsonl'"),
        ({"first_stage_weight": 1.1}, "first_stage_weight"),
        ({"verify_top": -1}, "verify_top"),
    ],
)
def test_options_out_of_range_are_named(
    model: MixLM, index: TokenIndex, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Reranker(model, index, **options)  # type: ignore[arg-type]


def test_an_index_of_another_item_encoder_is_refused(index: TokenIndex, tiny: Callable[..., MixLM]) -> None:
    """Naming both fingerprints and the command that mends it."""
    other = tiny("modernbert")
    with pytest.raises(IndexMismatch) as raised:
        Reranker(other, index)
    message = str(raised.value)
    assert other.fingerprint in message and index.manifest.fingerprint in message
    assert "mixlm-rerank index build" in message


def test_without_an_index_texts_are_encoded_as_they_would_lie_in_one(
    tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path
) -> None:
    model = tiny("bert", tokens=4)
    index = TokenIndex.build(documents, model, tmp_path / "index", progress=False)
    hits = [Candidate(document.docid, -float(place), document.content) for place, document in enumerate(documents)]
    for tokens in (1, None):
        expected = Reranker(model, index, tokens=tokens).rerank("a dog", hits)
        assert Reranker(model, tokens=tokens).rerank("a dog", hits) == expected
    with pytest.raises(MissingDocuments, match="no text was given to encode"):
        Reranker(model).rerank("a dog", ["d1"])


def test_what_is_kept_of_a_text_is_its_own_record_alone(
    tiny: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view would keep the records of all texts that were encoded with it."""
    reranker = Reranker(tiny("bert"))
    keep(3, reranker, monkeypatch)
    for turn in range(3):
        reranker.rerank(QUERY, [Candidate(f"{turn}-{n}", 1.0, f"text {turn} {n}") for n in range(20)])
    kept = list(mixlm_rerank.texts._kept.values())
    assert len(kept) == 3 and all(record.base is None for record in kept)


def keep(texts: int, reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process keep so many texts."""
    monkeypatch.setattr("mixlm_rerank.texts.KEPT_BYTES", texts * reranker.index.manifest.quantiser.record_bytes)


def test_all_rerankers_of_a_process_keep_texts_together(
    tiny: Callable[..., MixLM], fresh: Callable[..., MixLM]
) -> None:
    """Those of one item encoder: another's tokens are others, and so are its own after training."""
    text = [Candidate("x", 0.0, "a text that is kept for all rerankers")]
    model = fresh("bert", tokens=4)
    first, second = Reranker(model), Reranker(model, tokens=1)
    assert first.unread(text) == second.unread(text) == [0]
    before = first.rerank(QUERY, text)
    assert first.unread(text) == second.unread(text) == []
    assert Reranker(tiny("modernbert", tokens=4)).unread(text) == [0]
    weights = model.item_encoder.backbone.get_input_embeddings().weight
    kept = weights.detach().clone()
    with torch.no_grad():
        weights.mul_(1.5)
    trained = first.rerank(QUERY, text)
    assert trained[0].score != before[0].score
    assert Reranker(model).unread(text) == []
    with torch.no_grad():
        weights.copy_(kept)
    assert Reranker(model).rerank(QUERY, text) == before


def test_stages_can_be_traced(tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path) -> None:
    model = tiny("bert", tokens=4)
    index = TokenIndex.build(documents, model, tmp_path / "index", progress=False)
    reranker = Reranker(model, index, missing="encode", verify_top=1)
    stages: list[str] = []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        stages.append(name)
        yield
        stages.append("end")

    reranker.stage = stage
    reranker.rerank(QUERY, [Candidate("d1", 2.0, "a dog barks"), Candidate("x", 1.0, "a text of these stages")])
    assert stages == ["index", "end", "encode", "end", "score", "end", "verify", "end"]


@pytest.mark.parametrize("blanks", [["x"], ["x", "y"], ["x", "y", "d1"]])
def test_texts_without_a_word_are_last(tiny: Callable[..., MixLM], blanks: list[str]) -> None:
    """In two queries at once; also where there is nothing else."""
    texts = {"x": " ", "y": "\u200b\ufe0f", "d1": "a dog barks"}
    hits = [Candidate(docid, 0.0, texts[docid]) for docid in blanks]
    both = Reranker(tiny("bert")).rerank_batch({"a": "a dog", "b": "a cat"}, {"a": hits, "b": hits[::-1]})
    for docs, asked in ((both["a"], blanks), (both["b"], blanks[::-1])):
        assert [doc.docid for doc in docs] == sorted(asked, key=lambda docid: docid != "d1")
        assert [doc.missing for doc in docs] == [doc.docid != "d1" for doc in docs]


def test_queries_that_go_together_keep_their_own_texts(tiny: Callable[..., MixLM]) -> None:
    """The same docid with another text, or with none, in the company of another's."""
    reranker = Reranker(tiny("bert"))
    texts = {"a": "a dog barks at the moon", "b": "cats sleep all day", "c": "salt and yeast"}
    hits = {qid: [Candidate("x", 0.0, text), Candidate("y", 0.0, "bread")] for qid, text in texts.items()}
    together = reranker.rerank_batch(dict.fromkeys(texts, QUERY), hits)
    scores = {}
    for qid in texts:
        scores[qid] = {doc.docid: doc.score for doc in reranker.rerank(QUERY, hits[qid])}
        assert {doc.docid: doc.score for doc in together[qid]} == pytest.approx(scores[qid], abs=1e-4)
    assert scores["a"]["x"] != pytest.approx(scores["b"]["x"], abs=1e-3)
    with pytest.raises(MissingDocuments, match="no text was given to encode"):
        reranker.rerank_batch({"a": QUERY, "b": QUERY}, {"a": hits["a"], "b": [Candidate("x", 0.0)]})


def test_an_empty_index_is_an_index(model: MixLM, documents: list[Document], tmp_path: Path) -> None:
    """Documents that come later are seen."""
    index = TokenIndex.build(documents[:1], model, tmp_path / "index", progress=False)
    index.delete([documents[0].docid])
    reranker = Reranker(model, index)
    assert [doc.missing for doc in reranker.rerank(QUERY, ["d1"])] == [True]
    index.add(documents[:1], model, progress=False)
    assert [doc.missing for doc in reranker.rerank(QUERY, ["d1"])] == [False]


def test_many_threads_may_rank_texts(tiny: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """What one thread has found in the cache, others drop from it."""
    reranker = Reranker(tiny("bert"))
    keep(3, reranker, monkeypatch)
    texts = [f"a dog {'barks ' * number}" for number in range(12)]

    def scores(start: int) -> dict[str, float]:
        hits = [Candidate(text, 0.0, text) for text in texts[start % 7 : start % 7 + 5]]
        return {doc.docid: doc.score for doc in reranker.rerank(QUERY, hits)}

    alone = [scores(number) for number in range(7)]
    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(scores, range(60))):
            assert found == pytest.approx(alone[number % 7], abs=1e-4)


def test_passages_of_a_new_docid_are_each_read(
    tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path
) -> None:
    """Each has its own text's score, in the index's policy "encode" and without one; also where texts are verified."""
    model = tiny("bert", tokens=4)
    index = TokenIndex.build(documents, model, tmp_path / "index", progress=False)
    texts = ["a dog barks at the moon", "cats sleep all day"]
    passages = [Candidate("new", 0.0, text) for text in texts]
    for reranker in (Reranker(model), Reranker(model, index, missing="encode")):
        alone = {text: reranker.rerank("a dog", [Candidate(text, 0.0, text)])[0].score for text in texts}
        docs = reranker.rerank("a dog", passages)
        assert [(doc.docid, doc.text) for doc in docs] == [
            ("new", text) for text in sorted(texts, key=lambda text: -alone[text])
        ]
        assert {doc.text: doc.score for doc in docs} == pytest.approx(alone, abs=1e-4)
    verified = Reranker(model, verify_top=2).rerank("a dog", passages)
    full = {
        text: Reranker(model, verify_top=1).rerank("a dog", [Candidate(text, 0.0, text)])[0].score for text in texts
    }
    assert {doc.text: doc.score for doc in verified} == pytest.approx(full, abs=1e-4)
    with pytest.raises(InputError, match="'new' occurs twice"):
        Reranker(model).rerank("a dog", [*passages, passages[0]])


def test_plain_texts_are_ranked_by_their_places(model: MixLM, texts: dict[str, str]) -> None:
    given = [texts["d3"], texts["d1"], "", texts["d1"], texts["d2"]]
    docs = Reranker(model).rank(QUERY, given)
    hits = [Candidate(text, 0, text) for text in set(given) if text]
    by_text = {doc.text: doc.score for doc in Reranker(model).rerank(QUERY, hits)}
    assert sorted(doc.docid for doc in docs) == ["0", "1", "2", "3", "4"]
    assert [doc.rank for doc in docs] == [1, 2, 3, 4, 5]
    assert all(doc.text == given[int(doc.docid)] for doc in docs)
    assert [doc.score for doc in docs[:4]] == sorted((doc.score for doc in docs[:4]), reverse=True)
    assert all(doc.score == pytest.approx(by_text[doc.text or ""], abs=1e-4) for doc in docs[:4])
    assert docs[4].docid == "2" and docs[4].missing
    assert Reranker(model).rank(QUERY, given, top_k=2) == docs[:2]
    assert Reranker(model).rank(QUERY, []) == []


def test_plain_texts_are_not_taken_for_docids(model: MixLM, index: TokenIndex) -> None:
    (doc,) = Reranker(model, index, missing="encode").rank(QUERY, ["d1"])
    assert doc.score == pytest.approx(Reranker(model).rank(QUERY, ["d1"])[0].score, abs=0.1)  # the index is float32
    assert doc.score != Reranker(model, index).rerank(QUERY, ["d1"])[0].score


def test_what_is_no_list_of_texts_is_refused(model: MixLM, index: TokenIndex) -> None:
    with pytest.raises(InputError, match="must be a list of strings"):
        Reranker(model).rank(QUERY, "a dog")
    with pytest.raises(InputError, match="documents must be strings, not 7"):
        Reranker(model).rank(QUERY, ["a dog", 7])  # type: ignore[list-item]
    with pytest.raises(InputError, match='missing="last"'):
        Reranker(model, index).rank(QUERY, ["a dog"])


def test_a_threshold_leaves_out_what_is_below_and_what_was_not_scored(model: MixLM, index: TokenIndex) -> None:
    whole = Reranker(model, index).rerank(QUERY, [*HITS, STRANGER])
    least = whole[2].score
    reranker = Reranker(model, index, score_threshold=least)
    assert reranker.rerank(QUERY, [*HITS, STRANGER]) == whole[:3]
    assert reranker.rerank(QUERY, [*HITS, STRANGER], top_k=1) == whole[:1]
    assert Reranker(model, index, score_threshold=-1e9).rerank(QUERY, [*HITS, STRANGER]) == whole[:5]
    for other in ({"first_stage_weight": 0.5}, {"verify_top": 2, "verify_with": Lengths()}):
        with pytest.raises(InputError, match="score_threshold is in log-odds"):
            Reranker(model, index, score_threshold=0.0, **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda model, index: Reranker("default", index), "model must be a MixLM"),
        (lambda model, index: Reranker(index, model), "model must be a MixLM"),
        (lambda model, index: Reranker(model, {"d": 1}), "index must be a token index"),
        (lambda model, index: Reranker(model, index, first_stage_weight="0.1"), "first_stage_weight must be a number"),
        (lambda model, index: Reranker(model, index, verify_with=Lengths()), "verify_with goes with verify_top"),
        (lambda model, index: Reranker(model, index, verify_top=2, verify_with="ms-marco"), "must be a CrossEncoder"),
        (lambda model, index: Reranker(model, index, tokens=True), "tokens must be a whole number"),
        (lambda model, index: Reranker(model, index).rerank(QUERY, None), "hits must be a list of hits"),
        (lambda model, index: Reranker(model, index).rerank_batch(["q"], ["d1"]), "queries must be a mapping by qid"),
        (lambda model, index: Reranker(model).rerank(QUERY, [Candidate("d1", 1, 7)]), "its text must be a string"),
        (
            lambda model, index: Reranker(model, texts={"d1": 7}).rerank(QUERY, ["d1"]),
            "texts must give a text by docid",
        ),
        (lambda model, index: Reranker(model, texts=lambda _: ["a"]).rerank(QUERY, ["d1"]), "texts must give a text"),
        (lambda model, index: model.encode(None), "texts must be a list of strings"),
        (lambda model, index: model.encode([None]), "texts must be strings, not None"),
        (lambda model, index: index.fetch(None), "docids must be a list of strings"),
    ],
)
def test_what_was_not_meant_is_said(model: MixLM, index: TokenIndex, wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        wrong(model, index)


def test_a_text_that_is_nan_is_none(model: MixLM, index: TokenIndex) -> None:
    docs = Reranker(model, index).rerank(QUERY, [Candidate("d1", 1, float("nan"))])  # type: ignore[arg-type]
    assert not docs[0].missing and docs[0].text is None
