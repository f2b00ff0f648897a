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
        others = sorted(set(range(len(batch.documents))) - set(batch.own[row]))
        assert batch.labels[row, others].isnan().all() or pool.docids[0] in pool.judged
    torch.testing.assert_close(batch.teacher, source.teacher(batch.queries, batch.documents))
    assert batch.mask.all()


def test_every_position_depends_on_the_seed_alone(source: Source) -> None:
    one, again, other = (TrainingMix([source], 20, queries=4, candidates=3, seed=seed) for seed in (1, 1, 2))
    assert [one[p].queries for p in range(20)] == [again[p].queries for p in reversed(range(20))][::-1]
    assert [one[p].documents for p in range(20)] == [again[p].documents for p in range(20)]
    assert [one[p].queries for p in range(20)] != [other[p].queries for p in range(20)]


def test_each_round_sees_every_query_once(source: Source) -> None:
    mix = TrainingMix([source], 12, queries=4, candidates=3)
    rounds = [Counter(query for p in range(start, start + 6) for query in mix[p].queries) for start in (0, 6)]
    assert rounds[0] == rounds[1] == Counter(pool.query for pool in source.pools)


def test_queries_of_a_batch_are_near_to_each_other(source: Source) -> None:
    """Two far clusters never meet."""
    embeddings = np.zeros((24, 2))
    embeddings[::2] = 100, 100
    embeddings += np.random.default_rng(0).normal(size=(24, 2))
    mix = TrainingMix([replace(source, embeddings=embeddings)], 12, queries=4, candidates=2)
    place = {pool.query: row for row, pool in enumerate(source.pools)}
    for position in range(12):
        assert len({place[query] % 2 for query in mix[position].queries}) == 1


def test_sources_are_mixed_by_weight(source: Source) -> None:
    other = replace(source, name="other", pools=[replace(pool, query="other") for pool in source.pools], weight=3.0)
    mix = TrainingMix([source, other], 400, queries=4, candidates=2)
    share = np.mean([mix[position].queries[0] == "other" for position in range(400)])
    assert 0.68 < share < 0.82


def test_what_cannot_be_trained_on_is_refused(source: Source) -> None:
    for sources, message in (
        ([], "nothing to train on"),
        ([replace(source, pools=[])], "tiny has no queries to train on"),
        ([replace(source, embeddings=np.zeros((3, 8)))], "tiny has 24 pools, but 3 query embeddings"),
        ([replace(source, texts={})], r"tiny: the candidate 'd\d+' is no document of the corpus"),
    ):
        with pytest.raises(InputError, match=message):
            TrainingMix(sources, 4, queries=4, candidates=3)


def test_a_document_judged_for_another_query_of_the_batch_keeps_its_label(source: Source) -> None:
    """Relevant documents that are no candidate of their own query, too."""
    pools = [replace(pool, judged={f"d{number}": number % 3 for number in range(40)}) for pool in source.pools]
    graded = replace(source, pools=pools, highest_grade=2, label_scale=10.0)
    batch = TrainingMix([graded], 1, queries=4, candidates=3)[0]
    number = [int(text.split()[-1]) for text in batch.documents]
    expected = torch.tensor([[(n % 3) / 2 for n in number]]).expand(4, -1)
    torch.testing.assert_close(batch.labels, expected)
    plain = source.teacher(batch.queries, batch.documents)
    torch.testing.assert_close(batch.teacher, plain + 10 * expected)
