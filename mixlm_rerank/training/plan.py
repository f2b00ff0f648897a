"""What a distillation takes, said before it begins: the teacher's reading is most of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mixlm_rerank.eval import numbers
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.training.processes import processes
from mixlm_rerank.training.teacher import QUERIES_AT_ONCE, Teacher

__all__ = ["distil_plan"]

LONG = 2.0  # seconds


def distil_plan(
    teacher: Teacher,
    pools: Sequence[Pool],
    texts: Mapping[str, str],
    pairs: int,
    held_out: int,
    steps: Mapping[str, int],
) -> str:
    """One line. The teacher's time is that of some queries' candidates, read here, times the number of pairs.

    Args:
        pools, texts: what is to be learned from.
        pairs: how many of their candidates the teacher is to read.
        held_out: pairs of queries held out that the teacher reads, too, to be measured against.
        steps: of each part of the training, of all processes together.
    """
    then = ", ".join(f"{max(1, count // processes()):,} steps {name}" for name, count in steps.items())
    return (
        f"{len(pools):,} queries to learn from; the teacher reads {pairs:,} pairs, about "
        f"{numbers.duration(pairs * _pace(teacher, pools, texts))} here, and {held_out:,} of queries held out; then "
        f"{then}"
    )


def _pace(teacher: Teacher, pools: Sequence[Pool], texts: Mapping[str, str]) -> float:
    """Seconds a pair: of a few queries, more of them where that is quick (a GPU reads many at once)."""
    for count in (1, 1, 4, QUERIES_AT_ONCE):  # the first call is slower than the others
        own = pools[:count]
        started = time.perf_counter()
        teacher.score_batch([pool.query for pool in own], [[texts[docid] for docid in pool.docids] for pool in own])
        seconds = time.perf_counter() - started
        if seconds > LONG:
            break
    return seconds / sum(len(pool.docids) for pool in own)
