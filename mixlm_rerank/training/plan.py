"""What a distillation takes, said before it begins: the teacher's reading is most of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mixlm_rerank.eval import numbers
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.training.teacher import Teacher

__all__ = ["distil_plan"]


def distil_plan(
    teacher: Teacher, pools: Sequence[Pool], texts: Mapping[str, str], held_out: int, steps: Mapping[str, int]
) -> str:
    """One line. The teacher's time is that of one query's candidates, read here, times the number of pairs.

    Args:
        pools, texts: what is to be learned from.
        held_out: pairs of queries held out that the teacher reads, too.
        steps: of each part of the training.
    """
    pool = max(pools, key=lambda pool: len(pool.docids))
    asked = [pool.query], [[texts[docid] for docid in pool.docids]]
    teacher.score_batch(*asked)  # the first call is slower
    started = time.perf_counter()
    teacher.score_batch(*asked)
    pace = (time.perf_counter() - started) / len(pool.docids)
    pairs = held_out + sum(len(pool.docids) for pool in pools)
    then = ", ".join(f"{count:,} steps {name}" for name, count in steps.items() if count)
    return (
        f"{len(pools):,} queries to learn from; the teacher reads {pairs:,} pairs, about "
        f"{numbers.duration(pairs * pace)} here; then {then}"
    )
