"""The findings in words: what to use, where MixLM stands, what it gives up against the full text, where it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixlm_rerank import numbers
from mixlm_rerank.eval.pairs import compare_pairs
from mixlm_rerank.eval.report.answers import answers
from mixlm_rerank.eval.report.cast import best_of
from mixlm_rerank.eval.report.view import Finding, listed
from mixlm_rerank.eval.standings import Row, Standings, Verdict, verdict

__all__ = ["summary"]

JUDGED_GAP = 0.05  # so many fewer judged documents than the baseline has may hide what a system is worth
PERMUTATIONS = 10_000
WORDS = {
    Verdict.BETTER: "significantly better on",
    Verdict.BETTER_IN_ONE: "better by one of the two tests only on",
    Verdict.NO_DIFFERENCE: "no significant difference on",
    Verdict.WORSE_IN_ONE: "worse by one of the two tests only on",
    Verdict.WORSE: "significantly worse on",
}


def summary(table: Standings, judged: str | None) -> list[Finding]:
    """What holds, in a few sentences. A difference that no test finds significant is called just that.

    ``judged``: the measure that says how many of the shown documents are judged, "Judged@10"; None if not measured.
    """
    mixlm = best_of(table, "MixLM")
    reference = table.row(table.teacher) or best_of(table, "full text")
    findings = [_place(table, mixlm), _against_full_text(table, mixlm, reference), _losses(table)]
    findings.append(_unjudged(table, judged) if judged else None)
    return [*answers(table), *(finding for finding in findings if finding is not None)]


def _place(table: Standings, row: Row | None) -> Finding | None:
    ranked = _ranked(table)
    if row is None or row.mean is None:
        return None
    others = sum(other.kind == "MixLM" for other in ranked) - 1
    best_of_all = f", the best of {others + 1} MixLM here" if others else ""
    place = 1 + sum(_rounded(other) > _rounded(row) for other in ranked)
    text = f"{row.name}{best_of_all}: {table.measure} {_value(row)}, place {place} of {len(ranked)}."
    alone_at_top = row.best and sum(other.best for other in table.rows) == 1
    return Finding("MixLM", text if alone_at_top else text + _against_baseline(table, row))


def _against_full_text(table: Standings, row: Row | None, full: Row | None) -> Finding | None:
    if row is None or full is None or row is full or not row.mean or not full.mean:
        return None
    text = f"{row.name} reaches {numbers.percent(row.mean / full.mean)} of the {table.measure} of {full.name}"
    if row.documents_per_second and full.documents_per_second:
        factor = numbers.ratio(row.documents_per_second / full.documents_per_second)
        ours, theirs = numbers.speed(row.documents_per_second), numbers.speed(full.documents_per_second)
        text += f" and ranks {factor} as many documents a second ({ours} against {theirs})"
    verdicts = _tested(table, row, full)
    if verdicts:
        text += f". Tested against {full.name}: {_by_verdict(verdicts)}"
    return Finding("Against the full text", f"{text}.")


def _losses(table: Standings) -> Finding | None:
    """Of all MixLM, unless the one that there is was described already."""
    rows = [row for row in table.rows if row.kind == "MixLM" and any(c and c.verdict is not None for c in row.cells)]
    if len(rows) < 2:
        return None
    lost = {
        row.name: [name for name, cell in zip(table.collections, row.cells, strict=True) if cell and cell.verdict == -2]
        for row in rows
    }
    parts = [f"{name} on {listed(where)}" for name, where in lost.items() if where]
    against = table.baseline or "the collection's baseline"
    text = f"Significantly worse than {against}: {'; '.join(parts)}." if parts else ""
    return Finding("Losses", text or f"No MixLM is significantly worse than {against} on any collection.")


def _unjudged(table: Standings, judged: str) -> Finding | None:
    baseline = table.row(table.baseline)
    if baseline is None:
        return None
    gaps = []
    for column, collection in enumerate(table.collections):
        usual = baseline.value(column, judged)
        for row in table.rows:
            value = row.value(column, judged)
            if row.kind != "oracle" and usual is not None and value is not None and usual - value > JUDGED_GAP:
                gaps.append((usual - value, row.name, collection, value, usual))
    if not gaps:
        return None
    _, name, collection, value, usual = max(gaps)
    return Finding(
        "Read with care",
        f"Some systems bring up documents that nobody judged; those count as not relevant, so their true values may be "
        f"higher. The widest gap: {judged} of {name} is {numbers.measure(value)} on {collection}, that of "
        f"{baseline.name} {numbers.measure(usual)}.",
    )


def _against_baseline(table: Standings, row: Row) -> str:
    found = {n: c.verdict for n, c in zip(table.collections, row.cells, strict=True) if c and c.verdict is not None}
    against = table.baseline or "each collection's baseline"
    return f" Against {against}: {_by_verdict(found)}." if found else ""


def _by_verdict(verdicts: Mapping[str, Verdict]) -> str:
    groups = {kind: [name for name, found in verdicts.items() if found == kind] for kind in WORDS}
    return "; ".join(f"{WORDS[kind]} {_where(names, len(verdicts), kind)}" for kind, names in groups.items() if names)


def _where(names: Sequence[str], collections: int, kind: Verdict) -> str:
    if len(names) == collections > 1:
        return f"{'any of the' if kind is Verdict.NO_DIFFERENCE else 'all'} {collections} collections"
    return listed(names)


def _tested(table: Standings, row: Row, other: Row) -> dict[str, Verdict]:
    """Collection -> what the paired tests say of the two, Holm-corrected over the collections."""
    pairs = {
        collection: (other.by_query(column, table.measure), row.by_query(column, table.measure))
        for column, collection in enumerate(table.collections)
    }
    return {name: verdict(found) for name, found in compare_pairs(pairs, permutations=PERMUTATIONS).items()}


def _ranked(table: Standings) -> list[Row]:
    """The rows that can be compared by mean."""
    return [row for row in table.rows if row.kind != "oracle" and row.mean is not None]


def _rounded(row: Row) -> float:
    return round(row.mean or 0.0, numbers.DECIMALS)


def _value(row: Row) -> str:
    return "" if row.mean is None else numbers.measure(row.mean)
