"""The harness: a collection, a first stage and systems in; rankings, measures, tests and costs out. Resumable.

In addition to the means, results have the main measure by depth and by kind of query, and the queries on which systems
differ most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean

import numpy as np

from mixlm_rerank.arguments import check_strings
from mixlm_rerank.data import write_run
from mixlm_rerank.data.measures import evaluate, fidelity, measure, oracle
from mixlm_rerank.data.runs import check_ids
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.results import CollectionResult, Example, Shown, Slice, SystemResult
from mixlm_rerank.eval.significance import compare
from mixlm_rerank.ranking import unranked
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.systems.protocol import System
from mixlm_rerank.systems.ranked import FIRST_STAGE, ORACLE, Ranked, find_candidates, rank, slug
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.types import Candidate, ScoredDoc

__all__ = ["check_measures", "check_names", "depth_curve", "evaluate_collection", "examples", "slices"]

JUDGED = "Judged@10"  # always reported: the share of a ranking that is judged
DEPTHS = (10, 20, 50, 100, 200, 500, 1000)  # of the depth curve
PARTS = 3  # slices of the queries, by length
EXAMPLES, SHOWN = 3, 3  # wins, and losses, per system; documents shown per ranking

Ranking = Mapping[str, Sequence[ScoredDoc]]
Candidates = Mapping[str, Sequence[Candidate]]


def check_names(systems: Sequence[System], baseline: str, teacher: str | None) -> None:
    """Raises InputError if names are not unique (also as file names), or if baseline or teacher is not among them."""
    names = [FIRST_STAGE, *(system.name for system in systems), ORACLE]
    if len({slug(name).lower() for name in names}) < len(names):
        raise InputError(f"systems must have different names, and each can stand there once: {', '.join(names)}")
    for role, name in (("baseline", baseline), ("teacher", teacher)):
        if name is not None and name not in names:
            raise InputError(f"the {role} {name!r} is none of the systems {', '.join(names)}")


def check_measures(measures: Sequence[str]) -> None:
    """Raises InputError, before any work is done, for a measure that cannot be computed."""
    evaluate({"query": {"document": 1}}, {"query": [Candidate("document", 1.0)]}, measures)


def evaluate_collection(
    work: Workplace,
    first_stage: FirstStage,
    systems: Sequence[System],
    *,
    measures: Sequence[str],
    depth: int = 100,
    baseline: str = FIRST_STAGE,
    teacher: str | None = None,
    candidates_only: bool = False,
) -> CollectionResult:
    """Rank, time and measure every system on the first ``depth`` candidates; first stage and oracle are added.

    Rankings are saved in the folder of ``work`` as they are made: a second call skips finished queries. All runs are
    written there as TREC files.

    Args:
        work: the collection and the folder; documents are needed unless no system reads texts.
        systems: with unique names.
        measures: the first is the main one, used for tests and curves. Judged@10 is added.
        baseline, teacher: names of systems.
        candidates_only: systems get only the candidates as corpus. Rankings stay the same; sizes and build times are
            then those of the candidates.

    Raises:
        InputError: names that are not unique or unknown, an unknown measure, no candidates, candidates that the corpus
            lacks, no documents although texts are needed, a folder that cannot be written.
    """
    check_names(systems, baseline, teacher)
    check_strings("measures", measures)
    names = list(dict.fromkeys([*measures, JUDGED]))
    check_measures(names)
    collection = work.collection
    candidates = find_candidates(work, first_stage, depth)
    check_ids(candidates.of_query)  # before ranking, not when the runs are written
    of_systems = work.restricted(candidates.texts) if candidates_only else work

    def by_trec_eval(hit: Candidate) -> tuple[float, str]:
        """Sort key of trec_eval's order of a run: float32 score, then docid, both descending."""
        return float(np.float32(hit.score)), hit.docid

    ordered = {qid: sorted(hits, key=by_trec_eval, reverse=True) for qid, hits in candidates.of_query.items()}
    as_found = {qid: unranked(hits) for qid, hits in ordered.items()}
    ceiling = oracle(candidates.of_query, collection.qrels)
    found = [
        Ranked(FIRST_STAGE, first_stage.name, "first stage", as_found),
        *(rank(system, candidates, of_systems) for system in systems),
        Ranked(ORACLE, "the same candidates in the order of their judgments", "oracle", ceiling),
    ]
    for system in found:
        write_run(work.folder / f"{slug(system.name)}.trec", system.ranking, tag=slug(system.name))
    measured = {system.name: measure(collection.qrels, system.ranking, names) for system in found}
    main, rankings = names[0], {system.name: system.ranking for system in found}
    values = {name: per_query[main] for name, (_, per_query) in measured.items()}
    tested = {row.system: row for row in compare(values, baseline)}
    sizes = {
        "query length": {qid: len(text.split()) for qid, text in collection.queries.items()},
        "length of the relevant documents": candidates.relevant_words,
    }
    results: list[SystemResult] = []
    shown: list[Example] = []
    for system in found:
        name, ranking = system.name, system.ranking
        cuts = (candidates.of_query, collection.qrels, main, depth)
        results.append(
            SystemResult(
                name=name,
                description=system.description,
                measures=measured[name][0],
                per_query=measured[name][1],
                efficiency=system.efficiency,
                comparison=tested.get(name),
                fidelity=None if teacher is None or name == teacher else fidelity(ranking, rankings[teacher]),
                tokens=system.tokens,
                seed_group=system.seed_group,
                depth_curve=depth_curve(ranking, *cuts) if system.pointwise else {},
                slices=[piece for of, words in sizes.items() for piece in slices(of, words, values[name])],
                kind=system.kind,
            )
        )
        if system.efficiency is not None and name != baseline:  # neither first stage nor oracle
            pairs = (ranking, rankings[baseline]), (values[name], values[baseline])
            shown += examples(name, *pairs, collection.queries, collection.qrels, candidates.texts)
    judged = len(collection.qrels)
    place = collection.name, candidates.documents, judged, first_stage.name, depth, baseline, teacher
    return CollectionResult(*place, results, shown)


def depth_curve(
    ranking: Ranking, candidates: Candidates, qrels: Mapping[str, Mapping[str, int]], measure: str, depth: int
) -> dict[int, float]:
    """Depth d -> the measure if only the first d candidates are reranked and returned.

    Exact for pointwise systems, whose scores do not depend on the other candidates.
    """
    curve = {}
    for cut in sorted({*(d for d in DEPTHS if d < depth), depth}):
        kept = {qid: {hit.docid for hit in hits[:cut]} for qid, hits in candidates.items()}
        run = {qid: [doc for doc in docs if doc.docid in kept[qid]] for qid, docs in ranking.items()}
        curve[cut] = evaluate(qrels, run, [measure])[measure]
    return curve


def slices(of: str, sizes: Mapping[str, int], values: Mapping[str, float]) -> list[Slice]:
    """Means over thirds of the queries, divided by number of words (of the query or of its relevant documents).

    >>> slices("query length", {"a": 1, "b": 2, "c": 9}, {"a": 0.0, "b": 1.0, "c": 0.5})[0]
    Slice(of='query length', label='1 words', queries=1, value=0.0)
    """
    qids = sorted((qid for qid in values if qid in sizes), key=lambda qid: sizes[qid])
    if len(qids) < PARTS:
        return []
    edges = np.quantile([sizes[qid] for qid in qids], np.arange(1, PARTS) / PARTS, method="lower")
    found = []
    for _, own in groupby(qids, lambda qid: int(np.searchsorted(edges, sizes[qid]))):
        part = list(own)
        low, high = sizes[part[0]], sizes[part[-1]]
        label = f"{low} words" if low == high else f"{low} to {high} words"
        found.append(Slice(of, label, len(part), fmean(values[qid] for qid in part)))
    return found


def examples(
    system: str,
    rankings: tuple[Ranking, Ranking],
    values: tuple[Mapping[str, float], Mapping[str, float]],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    texts: Mapping[str, str],
) -> list[Example]:
    """The largest wins and losses of a system (first of each pair) against the baseline (second)."""
    value, baseline_value = values
    by_difference = sorted(value, key=lambda qid: baseline_value[qid] - value[qid])
    wins = [qid for qid in by_difference[:EXAMPLES] if value[qid] > baseline_value[qid]]
    losses = [qid for qid in reversed(by_difference[-EXAMPLES:]) if value[qid] < baseline_value[qid]]

    def shown(docs: Sequence[ScoredDoc], qid: str) -> list[Shown]:
        return [Shown(doc.docid, qrels[qid].get(doc.docid), texts.get(doc.docid, "")[:600]) for doc in docs[:SHOWN]]

    return [
        Example(
            qid, queries[qid], system, value[qid], baseline_value[qid], *(shown(r.get(qid, []), qid) for r in rankings)
        )
        for qid in [*wins, *losses]
    ]
