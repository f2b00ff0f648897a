"""The training set: reproducible, complete, grouped by likeness."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.training.mix import Source, TrainingMix


def test_a_batch_holds_each_query_with_its_candidates(source: Source) -> None:
    batch = TrainingMix([source], 4, queries=4, candidates=3)[2]
    by_query = {pool.query: pool for pool in source.pools}
    assert len(batch.queries) == 4 and len(set(batch.documents)) == len(batch.documents)
    for row, query in enumerate(batch.queries):
        pool = by_query[query]
        texts = [batch.documents[column] for column in batch.own[row]]
        assert texts[0] == source.texts[pool.docids[0]]  # the relevant one
        assert len(texts) == 3 and set(texts) <= {source.texts[docid] for docid in pool.docids}
        assert batch.labels[row, batch.own[row]].tolist() == [1, 0, 0]  # unjudged candidates are not relevant
        for column, text in enumerate(batch.documents):
            known = text in {source.texts[docid] for docid in pool.docids}
            assert batch.mask[row, column] == known == (not batch.labels[row, column].isnan())
            expected = len(set(query.split()) & set(text.split())) if known else np.nan
            assert batch.teacher[row, column].item() == pytest.approx(expected, nan_ok=True)


def test_every_position_depends_on_the_seed_alone(source: Source) -> None:
    one, again, other = (TrainingMix([source], 20, queries=4, candidates=3, seed=seed) for seed in (1, 1, 2))
    assert [one[p].queries for p in range(20)] == [again[p].queries for p in reversed(range(20))][::-1]
    assert [one[p].documents for p in range(20)] == [again[p].documents for p in range(20)]
    assert [one[p].queries for p in range(20)] != [other[p].queries for p in range(20)]


def test_a_longer_run_begins_with_a_shorter_ones_batches(source: Source) -> None:
    other = replace(source, name="other", pools=source.pools[::-1], scores=source.scores[::-1])
    short, long = (TrainingMix([source, other], count, queries=4, candidates=3) for count in (20, 50))
    for position in range(20):
        assert short[position].queries == long[position].queries
        assert short[position].documents == long[position].documents


def test_each_round_sees_every_query_once(source: Source) -> None:
    mix = TrainingMix([source], 12, queries=4, candidates=3)
    rounds = [Counter(query for p in range(start, start + 6) for query in mix[p].queries) for start in (0, 6)]
    assert rounds[0] == rounds[1] == Counter(pool.query for pool in source.pools)


def test_a_round_begins_with_what_is_left_over(source: Source) -> None:
    """The time of a step is estimated by the second batch."""
    mix = TrainingMix([source], 5, queries=5, candidates=3)
    assert [len(mix[position].queries) for position in range(5)] == [4, 5, 5, 5, 5]


def test_candidates_may_be_drawn_from_all_of_the_teachers_order(source: Source) -> None:
    """Five others in order, two sections: one of the best two, one of the other three."""
    mix = TrainingMix([source], 12, queries=4, candidates=3, draw="stratified")
    assert all((mask == ~np.isnan(source.scores)).all() for mask in mix.wanted())
    pools = {pool.query: (pool, scores) for pool, scores in zip(source.pools, source.scores, strict=True)}
    drawn = Counter()
    for position in range(12):
        batch = mix[position]
        for query, own in zip(batch.queries, batch.own, strict=True):
            pool, scores = pools[query]
            order = [source.texts[pool.docids[place]] for place in np.argsort(-scores, kind="stable")]
            first, *others = [batch.documents[column] for column in own]
            order.remove(first)
            assert first == source.texts[pool.docids[0]]
            assert [others[0] in order[:2], others[1] in order[2:]] == [True, True]
            drawn.update(order.index(other) for other in others)
    assert set(drawn) == {0, 1, 2, 3, 4}


def test_only_the_wanted_scores_are_read(source: Source) -> None:
    other = replace(source, name="other", scores=source.scores + 1)
    mix = TrainingMix([source, other], 5, queries=3, candidates=3)
    wanted = mix.wanted()
    assert all(0 < mask.sum() < mask.size for mask in wanted)
    known = [np.where(mask, one.scores, np.nan) for mask, one in zip(wanted, (source, other), strict=True)]
    partly = mix.with_sources([replace(one, scores=scores) for one, scores in zip((source, other), known, strict=True)])
    for position in range(5):
        torch.testing.assert_close(partly[position].teacher, mix[position].teacher, equal_nan=True)
        assert not partly[position].teacher[partly[position].mask].isnan().any()


def test_sources_are_mixed_by_weight(source: Source) -> None:
    other = replace(source, name="other", pools=[replace(pool, query="other") for pool in source.pools], weight=3.0)
    mix = TrainingMix([source, other], 400, queries=4, candidates=2)
    share = np.mean([mix[position].queries[0] == "other" for position in range(400)])
    assert 0.68 < share < 0.82


def test_what_cannot_be_trained_on_is_refused(source: Source) -> None:
    for sources, message in (
        ([], "nothing to train on"),
        ([replace(source, pools=[])], "tiny has no queries to train on"),
        ([replace(source, scores=np.zeros((3, 8)))], r"24 pools of at most 6 candidates, .* of shape \(3, 8\)"),
        ([replace(source, texts={})], r"tiny: the candidate 'd\d+' is no document of the corpus"),
    ):
        with pytest.raises(InputError, match=message):
            TrainingMix(sources, 4, queries=4, candidates=3)


def test_grades_are_labels_in_shares_of_the_highest_and_raise_the_teacher(source: Source) -> None:
    pools = [replace(pool, judged={docid: row % 3 for row, docid in enumerate(pool.docids)}) for pool in source.pools]
    plain = TrainingMix([source], 1, queries=4, candidates=6)[0]
    batch = TrainingMix([replace(source, pools=pools, highest_grade=2, label_scale=10.0)], 1, queries=4, candidates=6)[
        0
    ]
    assert batch.queries == plain.queries and set(batch.documents) == set(plain.documents)
    place = [plain.documents.index(text) for text in batch.documents]
    assert set(batch.labels[batch.mask].tolist()) == {0.0, 0.5, 1.0}
    torch.testing.assert_close(batch.teacher, plain.teacher[:, place] + 10 * batch.labels, equal_nan=True)
