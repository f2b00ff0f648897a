"""Teacher scores of candidate pools: computed once, kept in an array that a resumed run continues to fill.

Also an estimate of how long scoring and training will take.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.running import bf16_pays
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.training.folder import kept_array, process_count
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.mix import TrainingMix
from mixlm_rerank.training.pools import Pool, digest, is_candidate
from mixlm_rerank.training.stage3 import JointOptions
from mixlm_rerank.training.stage_trainer import Float32Attention

__all__ = ["Teacher", "distill_plan", "teacher_scores"]

QUERIES_AT_ONCE = 16  # a kill loses at most these
LONG = 2.0  # seconds: a reading that takes longer is enough to measure the pace
FLAT = 0.1  # log-odds between the best and the worst candidate of a query: less is no order to learn


class Teacher(Protocol):
    """The ranker that is imitated: any full-text cross-encoder, or an ensemble.

    Stored scores are recognised as its own by its ``fingerprint``, a hash of its weights, or else by its class only.
    """

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> Sequence[NDArray[np.floating]]:
        """Scores of each query's candidates: higher is better, on the scale of log-odds. -> [n] a query."""
        ...


def teacher_scores(
    path: str | Path,
    teacher: Teacher,
    pools: Sequence[Pool],
    texts: Mapping[str, str],
    *,
    wanted: NDArray[np.bool_] | None = None,
    progress: bool = True,
) -> NDArray[np.float32]:
    """The teacher's score of every candidate, float32 [pools, most candidates]; NaN past a pool's end.

    Scores are saved in ``path`` as they are computed; existing ones are not computed again. A JSON file next to it
    says which teacher and which candidates they belong to.

    ``wanted``: bool, of the same shape; other candidates may stay NaN. None: all.

    Warns where the scores of the first queries are nearly constant.

    Raises InputError if a score is not finite, or ``path`` holds scores of another teacher or of other candidates.
    """
    path = Path(path)
    asked = is_candidate(pools) if wanted is None else is_candidate(pools) & wanted
    by = getattr(teacher, "fingerprint", type(teacher).__name__)
    scores = kept_array(path, asked.shape, {"teacher": by, "set of candidates": digest(pools, texts)})
    rows = np.flatnonzero(asked.any(axis=1)).tolist()
    left = [row for row in rows if np.isnan(scores[row, asked[row]]).any()]
    with progress_bar(
        len(rows), f"teacher: {path.stem}", "queries", enabled=progress, initial=len(rows) - len(left)
    ) as bar:
        for start in range(0, len(left), QUERIES_AT_ONCE):
            group = left[start : start + QUERIES_AT_ONCE]
            columns = [np.flatnonzero(asked[row] & np.isnan(scores[row])) for row in group]
            docids = [[pools[row].docids[column] for column in own] for row, own in zip(group, columns, strict=True)]
            queries = [pools[row].query for row in group]
            answers = teacher.score_batch(queries, [[texts[docid] for docid in own] for own in docids])
            for row, own, named, answer in zip(group, columns, docids, answers, strict=True):
                if not np.isfinite(answer).all():
                    raise InputError(
                        f"the teacher's score of document {named[int(np.argmin(np.isfinite(answer)))]!r} for query "
                        f"{pools[row].qid!r} is not finite: use the teacher in float32, or leave the document out"
                    )
                scores[row, own] = answer
            spread = max(float(np.ptp(own)) for own in answers)
            if start == 0 and spread < FLAT and max(map(len, answers)) > 1:
                warnings.warn(
                    "the teacher hardly tells documents apart: scores of a query's candidates differ by at most "
                    f"{spread:.2g} log-odds. Check that it is a cross-encoder that was trained to rank",
                    stacklevel=2,
                )
            bar.update(len(group))
    scores.flush()
    return np.where(asked, scores, np.float32(np.nan))  # another run may have asked for more


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
    """An estimate in one line. The teacher's time per pair is measured here on some queries' candidates, that of a
    joint step on one step, whose result is discarded.

    Args:
        pools, texts: the training data.
        pairs: how many of their candidates the teacher is to read.
        held_out: how many pairs of held-out queries the teacher reads, too, for comparison.
        model, mixes, options: the model, the batches of each part of the training, and the options of training.
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
    batch = mix[min(1, len(mix) - 1)]  # a full batch: the first of a round holds the remaining queries
    passes = batch.pieces(options.queries_at_once or len(batch.queries))
    mixed = torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16 and bf16_pays(model.device))
    seconds = math.inf
    for _ in range(2):  # the first one is slower
        started = time.perf_counter()
        try:
            with Float32Attention(), mixed:
                loss = objective(passes[0], options.phases[-1], sorted(options.budgets)[-2:])["loss"]
            loss.backward()
            loss.item()  # synchronises with a GPU
        except RuntimeError:  # out of memory: training handles it
            seconds = math.nan
        model.zero_grad()
        seconds = min(seconds, time.perf_counter() - started)
    return seconds * len(passes)


def _pace(teacher: Teacher, pools: Sequence[Pool], texts: Mapping[str, str]) -> float:
    """Seconds per pair, measured on a few queries, and on more if these are fast (a GPU reads many at once)."""
    for count in (1, 1, 4, QUERIES_AT_ONCE):  # the first call is slower than the others
        own = pools[:count]
        started = time.perf_counter()
        teacher.score_batch([pool.query for pool in own], [[texts[docid] for docid in pool.docids] for pool in own])
        seconds = time.perf_counter() - started
        if seconds > LONG:
            break
    return seconds / sum(len(pool.docids) for pool in own)
