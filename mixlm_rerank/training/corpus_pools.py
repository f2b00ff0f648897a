"""What a distillation learns from: candidates of each query, many of which look relevant already."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.systems.mixlm import TokenReranker
from mixlm_rerank.systems.ranked import Candidates, rank
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.training.pools import Pool, read_pools, write_pools
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["corpus_pools"]


def corpus_pools(
    path: Path, candidates: Candidates, work: Workplace, start: MixLM, *, size: int, hard: int, seed: int
) -> list[Pool]:
    """At most ``size`` candidates of each query, drawn once and kept in ``path``.

    ``hard`` of them are, in turn, those that the first stage and ``start`` rank first (with a residual by one embedding
    token): the teacher's own first ones are mostly among these, and their order is what counts. The others are drawn
    at random.

    Raises InputError unless two queries have two candidates each: one to train on, one to choose by.
    """
    if not path.exists():
        ranked: Mapping[str, Sequence[ScoredDoc | Candidate]] = {}
        if hard and candidates.of_query:
            system = TokenReranker(start, None if start.config.residual == "none" else 1)
            system.name = "hard candidates"
            ranked = rank(system, candidates, work).ranking
        draw = random.Random(seed)
        pools = []
        for qid, hits in candidates.of_query.items():
            in_turn = chain.from_iterable(zip(hits, ranked.get(qid, hits), strict=True))
            first = list(dict.fromkeys(one.docid for one in in_turn))[: min(hard, size)]
            others = [hit.docid for hit in hits if hit.docid not in first]
            chosen = [*first, *draw.sample(others, min(size - len(first), len(others)))]
            if len(chosen) > 1:
                pools.append(Pool(qid, work.collection.queries[qid], chosen, {}))
        if len(pools) < 2:
            raise InputError(
                f"{candidates.first_stage} finds two documents or more for {len(pools)} of {len(candidates.of_query)} "
                "queries, and two such queries are needed: are they of this corpus?"
            )
        write_pools(path, pools)
    return read_pools(path)
