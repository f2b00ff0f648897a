"""Click models: simulated users who examine, click and stop on a result page, from judgments or from a click log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixlm_rerank.data.lines import lines
from mixlm_rerank.errors import InputError

__all__ = ["ClickModel", "Impression", "JUDGED", "judged_clicks", "logged_clicks", "read_click_log"]

Floats = NDArray[np.float64]

# Probability of a click on an examined document, and of stopping after a click; by grade, from 0 to 4.
CASCADES = {
    "perfect": ((0.0, 0.2, 0.4, 0.8, 1.0), (0.0, 0.0, 0.0, 0.0, 0.0)),
    "navigational": ((0.05, 0.3, 0.5, 0.7, 0.95), (0.2, 0.3, 0.5, 0.7, 0.9)),
    "informational": ((0.4, 0.6, 0.7, 0.8, 0.9), (0.1, 0.2, 0.3, 0.4, 0.5)),
}
POSITION_BASED = "position-based"
JUDGED = (*CASCADES, POSITION_BASED)
NOISE = 0.1  # position-based: click probability of an examined document of grade 0
HEADER = ["session", "qid", "shown", "clicked"]
ITERATIONS = 1000
CONVERGED = 1e-7  # largest change of a click probability


@dataclass(frozen=True)
class ClickModel:
    """Users who read a list from the top. They examine a document with the probability of its rank, click on an
    examined document with its probability for the query, and may stop after a click. In the cascade model users examine
    every document until they stop; in the position-based model they never stop.
    """

    name: str
    examination: Floats  # [depth] by rank; a page has ``depth`` documents
    # qid -> docid -> (probability of a click if examined, probability of stopping after a click)
    behaviour: Mapping[str, Mapping[str, tuple[float, float]]]
    others: tuple[float, float]  # click and stop probabilities of documents that ``behaviour`` lacks
    asked: Mapping[str, float]  # qid -> how often the query is asked, in any unit

    @property
    def depth(self) -> int:
        return len(self.examination)

    def clicks(
        self, qid: str, docids: Sequence[str], lists: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Simulate clicks; returns a mask of the shape of ``lists``: [sessions, depth] positions in ``docids``, best
        first, -1 past the end of a list.
        """
        known = self.behaviour.get(qid, {})
        pairs = np.array([*(known.get(docid, self.others) for docid in docids), (0.0, 0.0)])  # row -1: never clicked
        attraction, stop = pairs[lists].transpose(2, 0, 1)
        draws = rng.random((3, *lists.shape))
        wanted = (draws[0] < attraction) & (draws[1] < self.examination)
        last = wanted & (draws[2] < stop)
        gone = np.cumsum(last, axis=1, dtype=np.int64) - last > 0  # stopped at an earlier document
        clicked: NDArray[np.bool_] = wanted & ~gone
        return clicked


def judged_clicks(name: str, qrels: Mapping[str, Mapping[str, int]], depth: int = 10) -> ClickModel:
    """Users who click on documents judged relevant; all judged queries are asked equally often.

    ``perfect``, ``navigational`` and ``informational`` are the cascade models of Hofmann, Whiteson and de Rijke
    (Balancing exploration and exploitation in listwise and pairwise online learning to rank for information retrieval,
    Information Retrieval 16, 2013), with the probabilities that later work uses for five grades (Schuth et al.,
    Multileave gradient descent for fast online learning to rank, WSDM 2016). Other grade scales are stretched to these
    five grades, with linear interpolation. This gives the published values for two grades, and for three grades except
    at the middle grade of ``perfect`` (.4, not .5).

    ``position-based`` users examine rank r with probability 1 / r (Joachims, Swaminathan and Schnabel, Unbiased
    learning-to-rank with biased feedback, WSDM 2017) and then click with probability
    .1 + .9 (2^grade - 1) / (2^highest - 1) (Ai et al., Unbiased learning to rank with unbiased propensity estimation,
    SIGIR 2018).

    Grades below 0 and unjudged documents count as 0; the highest grade is the maximum over all judgments. A page has
    ``depth`` documents. Raises InputError for a name not in ``JUDGED``, or if no document has a grade above 0.
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
    """Click and stop probabilities of a grade; ``share``: the grade over the highest grade."""
    if name == POSITION_BASED:
        none = 2.0**-highest  # both sides of the fraction are divided by 2^highest, which may overflow
        return NOISE + (1 - NOISE) * (2.0 ** (share * highest - highest) - none) / (1 - none), 0.0
    click, stop = (float(np.interp(share * 4, range(5), values)) for values in CASCADES[name])
    return click, stop


@dataclass(frozen=True)
class Impression:
    """One page of results: the query's qid, the docids shown, best first, and the docids clicked."""

    qid: str
    shown: tuple[str, ...]
    clicked: frozenset[str]


def read_click_log(path: str | Path) -> Iterator[Impression]:
    """Read lines of ``session <tab> qid <tab> docids shown, best first <tab> docids clicked``.

    Docids are separated by spaces; the last column may be empty. A header line is skipped.

    Raises InputError, during iteration, for a line with the wrong number of columns, an empty column other than the
    last, a document that is shown twice, or a click on a document that was not shown.
    """
    for number, line in lines(path):
        where = f"{path}, line {number}"
        columns = [column.strip() for column in line.split("\t")]
        if number == 1 and columns[2:] == HEADER[2:]:
            continue
        if len(columns) != 4:
            raise InputError(f"{where}: {len(columns)} columns, expected 4, divided by tabs ({', '.join(HEADER)})")
        if not all(columns[:3]):
            raise InputError(
                f"{where}: the column {HEADER[columns.index('')]!r} is empty; expected {', '.join(HEADER)}"
            )
        shown, clicked = columns[2].split(), frozenset(columns[3].split())
        if len(set(shown)) < len(shown):
            raise InputError(f"{where}: document {Counter(shown).most_common(1)[0][0]!r} is shown twice")
        if not clicked <= set(shown):
            unknown = min(clicked.difference(shown))
            raise InputError(f"{where}: a click on document {unknown!r}, which is not among those shown")
        yield Impression(columns[1], tuple(shown), clicked)


def logged_clicks(log: Iterable[Impression], depth: int = 10) -> ClickModel:
    """Fit the position-based model to a click log.

    Estimated by expectation maximisation (Chuklin, Markov and de Rijke, Click Models for Web Search, 2015, chapter 4)
    on the first ``depth`` ranks. The prior is one extra impression of average attraction for each query-document pair;
    a document never shown for a query has average attraction. Queries are asked as often as in the log.

    Raises InputError for a log that is empty, has no click, or whose ranks share no documents: examination can only be
    estimated from documents shown at different ranks.
    """
    shows: Counter[tuple[str, str, int]] = Counter()
    clicks: Counter[tuple[str, str, int]] = Counter()
    asked: Counter[str] = Counter()
    for page in log:
        asked[page.qid] += 1
        for rank, docid in enumerate(page.shown[:depth]):
            shows[page.qid, docid, rank] += 1
            clicks[page.qid, docid, rank] += docid in page.clicked
    if not shows:
        raise InputError("the click log is empty: expected lines of session, qid, shown, clicked")
    if not clicks.total():
        raise InputError(f"the click log has no click on the first {depth} documents of {asked.total():,} sessions")
    pairs = {pair: row for row, pair in enumerate(dict.fromkeys((qid, docid) for qid, docid, _ in shows))}
    cells = np.array([pairs[qid, docid] for qid, docid, _ in shows]), np.array([rank for _, _, rank in shows])
    shown = np.zeros((len(pairs), cells[1].max() + 1))
    clicked = np.zeros_like(shown)
    shown[cells], clicked[cells] = list(shows.values()), list(clicks.values())
    _check_ranks(shown > 0)
    attraction, examination = _fit(shown, clicked)
    behaviour: dict[str, dict[str, tuple[float, float]]] = {qid: {} for qid in asked}
    for (qid, docid), clicked_on in zip(pairs, attraction.tolist(), strict=True):
        behaviour[qid][docid] = clicked_on, 0.0
    return ClickModel(POSITION_BASED, examination, behaviour, (float(attraction.mean()), 0.0), asked)


def _check_ranks(shown: NDArray[np.bool_]) -> None:
    """Raises InputError unless shared documents link all ranks, directly or through other ranks."""
    shared = shown.T @ shown
    apart = np.flatnonzero(~np.linalg.matrix_power(shared, len(shared))[0]) + 1
    if len(apart):
        raise InputError(
            f"the click log shows no document both at rank {' or '.join(map(str, apart))} and at a rank that can be "
            "compared with rank 1, so position cannot be told from attractiveness: log sessions in which results were "
            "swapped, or look at fewer ranks (depth)"
        )


def _fit(shown: Floats, clicked: Floats) -> tuple[Floats, Floats]:
    """Attraction of each pair and examination of each rank; both arguments are [pairs, ranks] counts."""
    attraction, examination = np.full((len(shown), 1), 0.5), np.full(shown.shape[1], 0.5)
    product = attraction * examination
    for _ in range(ITERATIONS):
        passed = (shown - clicked) / np.maximum(1 - product, 1e-12)
        attracted = clicked + passed * attraction * (1 - examination)
        examined = clicked + passed * (1 - attraction) * examination
        attraction = ((attracted.sum(1) + attraction.mean()) / (shown.sum(1) + 1))[:, None]
        examination = examined.sum(0) / shown.sum(0)
        before, product = product, attraction * examination
        if np.abs(product - before).max() < CONVERGED:
            break
    highest = examination.max()  # only the product is identifiable: the most examined rank gets examination 1
    return attraction[:, 0] * highest, examination / highest
