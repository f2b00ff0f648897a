"""A distillation in words: what it takes, said before it begins, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch

from mixlm_rerank import numbers
from mixlm_rerank.data.fidelity import Fidelity
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.training.folder import process_count
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.training.stage3 import JointOptions
from mixlm_rerank.training.stage_trainer import Float32Attention
from mixlm_rerank.training.teacher import QUERIES_AT_ONCE, Teacher

__all__ = ["distill_plan", "verdict"]

LONG = 2.0  # seconds
FEW = 20  # queries: the standard error of a mean overlap is then about .04


def distill_plan(
    teacher: Teacher,
    pools: Sequence[Pool],
    texts: Mapping[str, str],
    pairs: int,
    held_out: int,
    model: MixLM,
    mixes: Mapping[str, TrainingMix],
    options: JointOptions,
) -> str:
    """One line. The teacher's time is that of some queries' candidates, read here, times the number of pairs; that of a
    joint step is of one, done here and not kept.

    Args:
        pools, texts: what is to be learned from.
        pairs: how many of their candidates the teacher is to read.
        held_out: pairs of queries held out that the teacher reads, too, to be measured against.
        model, mixes, options: what is trained, the batches of each part of the training, and how.
    """
    steps = {name: options.steps_of(mix) for name, mix in mixes.items()}
    seconds = max(1, len(mixes["joint"]) // process_count()) * _step(model, mixes["joint"], options)
    about = {"joint": f" (about {numbers.duration(seconds)})" if math.isfinite(seconds) else ""}
    then = ", ".join(f"{count:,} steps {name}{about.get(name, '')}" for name, count in steps.items())
    return (
        f"{len(pools):,} queries to learn from; the teacher reads {pairs:,} pairs, and {held_out:,} of queries held "
        f"out (about {numbers.duration((pairs + held_out) * _pace(teacher, pools, texts))}); then {then}; "
        "encoding and measuring come on top"
    )


def _step(model: MixLM, mix: TrainingMix, options: JointOptions) -> float:
    """Seconds of a joint step: those of one pass, times the number of passes. NaN where it does not fit into memory."""
    objective = JointObjective(model, temperature=options.temperature, texts_per_query=options.texts_per_query)
    passes = mix[0].pieces(options.queries_at_once or len(mix[0].queries))
    mixed = torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16 and bf16_pays(model.device))
    seconds = math.inf
    for _ in range(2):  # the first one is slower
        started = time.perf_counter()
        try:
            with Float32Attention(), mixed:
                loss = objective(passes[0], options.phases[-1], sorted(options.budgets)[-2:])["loss"]
            loss.backward()
            loss.item()  # a GPU is waited for
        except RuntimeError:  # out of memory: the training has an answer to it
            seconds = math.nan
        model.zero_grad()
        seconds = min(seconds, time.perf_counter() - started)
    return seconds * len(passes)


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


def verdict(found: Mapping[str, Fidelity]) -> str:
    """Is the fitted model nearer to its teacher than the start was? By mean rank-biased overlap, at every token budget.

    ``found``: as :func:`distill` returns it.

    >>> verdict({"start k=1": Fidelity(0.5, 0.5, 0.5, 0.5, 40), "k=1": Fidelity(0.6, 0.5, 0.5, 0.5, 40)})
    'better than the start at every token budget (k=1 +.100), on 40 held-out queries'
    """
    values = {name: value.rank_biased_overlap for name, value in found.items()}
    gains = {name: value - values[f"start {name}"] for name, value in values.items() if f"start {name}" in values}
    by = {better: [name for name, gain in gains.items() if (gain > 0) == better] for better in (True, False)}
    told = ", ".join(f"{name} {numbers.difference(gain)}" for name, gain in gains.items())
    if not by[False]:
        where = f"better than the start at every token budget ({told})"
    elif by[True]:
        where = f"better than the start at {', '.join(by[True])}, not at {', '.join(by[False])} ({told})"
    else:
        where = f"not better than the start at any token budget ({told})"
    count = next(iter(found.values())).queries
    if count < FEW:
        return f"{where}, on {count} held-out queries: too few to tell"
    advice = "; try more queries (--queries, or options.queries in --config) or rounds" if by[False] else ""
    return f"{where}, on {count:,} held-out queries{advice}"
