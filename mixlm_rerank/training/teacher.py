"""Teacher scores of candidate pools: computed once, kept as an array that an interrupted run goes on to fill."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.training.pools import Pool, is_candidate

__all__ = ["Teacher", "teacher_scores"]

QUERIES_AT_ONCE = 16  # what a kill can lose
FLAT = 0.1  # log-odds between the best and the worst candidate of a query: no order to learn


class Teacher(Protocol):
    """Whoever is to be imitated: any full-text cross-encoder, or an ensemble."""

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

    They are kept in ``path`` while they are computed; what is there already is not computed again.

    ``wanted``: bool, of the same shape; other candidates may stay NaN. None: all.

    Warns where the scores of the first queries are nearly constant.

    Raises InputError if a score is not finite, or ``path`` holds scores of other pools.
    """
    path = Path(path)
    asked = is_candidate(pools) if wanted is None else is_candidate(pools) & wanted
    scores = _opened(path, asked.shape)
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
            if start == 0:
                _warn_if_flat(answers)
            bar.update(len(group))
    scores.flush()
    return np.where(asked, scores, np.float32(np.nan))  # another run may have asked for more


def _warn_if_flat(answers: Sequence[NDArray[np.floating]]) -> None:
    spread = max(float(np.ptp(own)) for own in answers)
    if spread < FLAT and max(map(len, answers)) > 1:
        warnings.warn(
            f"the teacher hardly tells documents apart: scores of a query's candidates differ by at most {spread:.2g} "
            "log-odds. Check that it is a cross-encoder that was trained to rank",
            stacklevel=3,
        )


def _opened(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float32]]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")
        empty = open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)
        empty[:] = np.nan
        empty.flush()
        draft.replace(path)
    scores: np.memmap[Any, np.dtype[np.float32]] = np.load(path, mmap_mode="r+")
    if scores.shape != shape:
        raise InputError(f"{path} holds teacher scores of other candidates ({scores.shape}, not {shape}): delete it")
    return scores
