"""Simulated users of a result page: who looks where, clicks on what, and stops when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError

__all__ = ["JUDGED", "ClickModel", "judged_clicks"]

Floats = NDArray[np.float64]

# Probability of a click on an examined document, and of stopping after a click; by grade, from 0 to 4.
CASCADES = {
    "perfect": ((0.0, 0.2, 0.4, 0.8, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0)),
    "navigational": ((0.05, 0.3, 0.5, 0.7, 0.95), (0.2, 0.3, 0.5, 0.7, 0.9)),
    "informational": ((0.4, 0.6, 0.7, 0.8, 0.9), (0.1, 0.2, 0.3, 0.4, 0.5)),
}
POSITION_BASED = "position-based"
JUDGED = (*CASCADES, POSITION_BASED)
NOISE = 0.1  # position-based: clicks on an examined document of grade 0


@dataclass(frozen=True)
class ClickModel:
    """Users who go down a list and click.

    A user examines a document with the probability of its rank, clicks on an examined document with the probability of
    the document for the query, and may stop after a click. The cascade model and the position-based model are the
    cases without the first and without the last of these three.

    Attributes:
        name: for tables.
        examination: [depth] by rank; a page has ``depth`` documents.
        behaviour: qid -> docid -> (probability of a click if examined, probability of stopping after a click).
        others: the same pair, for documents that ``behaviour`` lacks.
        asked: qid -> how often the query is asked, in any unit.
    """

    name: str
    examination: Floats
    behaviour: Mapping[str, Mapping[str, tuple[float, float]]]
    others: tuple[float, float]
    asked: Mapping[str, float]

    @property
    def depth(self) -> int:
        return len(self.examination)

    def clicks(
        self, qid: str, docids: Sequence[str], lists: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.bool_]:
        """What users click on.

        Args:
            docids: of the documents that can be shown.
            lists: [sessions, depth] positions in ``docids``, best first; -1 past the end of a list.

        Returns: an array like ``lists``.
        """
        known = self.behaviour.get(qid, {})
        pairs = np.array([*(known.get(docid, self.others) for docid in docids), (0.0, 0.0)])  # -1: nothing to click on
        attraction, stop = pairs[lists].transpose(2, 0, 1)
        draws = rng.random((3, *lists.shape))
        wanted = (draws[0] < attraction) & (draws[1] < self.examination)
        last = wanted & (draws[2] < stop)
        gone = np.cumsum(last, axis=1, dtype=np.int64) - last > 0  # stopped at a document above
        clicked: NDArray[np.bool_] = wanted & ~gone
        return clicked


def judged_clicks(name: str, qrels: Mapping[str, Mapping[str, int]], depth: int = 10) -> ClickModel:
    """Users who click on what was judged relevant; each judged query is asked as often as any other.

    ``perfect``, ``navigational`` and ``informational`` are the cascade models of Hofmann, Whiteson and de Rijke
    (Balancing exploration and exploitation in listwise and pairwise online learning to rank for information retrieval,
    Information Retrieval 16, 2013), with the probabilities that later work uses for five grades (Schuth et al.,
    Multileave gradient descent for fast online learning to rank, WSDM 2016). A scale with other grades is stretched to
    five, between which values are interpolated; for two grades that gives the published values, for three those too,
    but for the middle grade of ``perfect`` (.4, not .5).

    ``position-based`` users examine rank r with probability 1 / r (Joachims, Swaminathan and Schnabel, Unbiased
    learning-to-rank with biased feedback, WSDM 2017) and then click with probability
    .1 + .9 (2^grade - 1) / (2^highest - 1) (Ai et al., Unbiased learning to rank with unbiased propensity estimation,
    SIGIR 2018).

    Args:
        name: one of ``JUDGED``.
        qrels: qid -> docid -> grade. Grades below 0, and documents that are not judged, count as 0; the highest grade
            is that of all judgments.
        depth: documents on a page.

    Raises InputError for another name, or where no document has a grade above 0.
    """
    if name not in JUDGED:
        raise InputError(f"unknown click model {name!r}: there is {', '.join(JUDGED)}")
    grades = {grade for own in qrels.values() for grade in own.values()}
    highest = max(grades, default=0)
    if highest < 1:
        raise InputError("no document is judged relevant (grade 1 or higher): simulated users have nothing to look for")
    by_grade = {grade: _behaviour(name, max(grade, 0) / highest, highest) for grade in grades | {0}}
    return ClickModel(
        name,
        1 / np.arange(1, depth + 1) if name == POSITION_BASED else np.ones(depth),
        {qid: {docid: by_grade[grade] for docid, grade in own.items()} for qid, own in qrels.items()},
        by_grade[0],
        dict.fromkeys(qrels, 1.0),
    )


def _behaviour(name: str, share: float, highest: int) -> tuple[float, float]:
    """Probabilities of clicking and stopping at a grade that is this share of the highest one."""
    if name == POSITION_BASED:
        none = (
            2.0**-highest
        )  # both sides of the fraction are divided by 2^highest, which may be more than a float holds
        return NOISE + (1 - NOISE) * (2.0 ** (share * highest - highest) - none) / (1 - none), 0.0
    click, stop = (float(np.interp(share * 4, range(5), values)) for values in CASCADES[name])
    return click, stop
