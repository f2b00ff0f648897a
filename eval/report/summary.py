"""The findings in words: what to use, where MixLM stands, what it gives up against the full text, where it loses."""

from __future__ import annotations

from collections.abc import Mapping

from mixlm_rerank import numbers
from mixlm_rerank.eval.report.answers import Finding, answers
from mixlm_rerank.eval.report.cast import best_of
from mixlm_rerank.eval.significance import Verdict, compare_pairs
from mixlm_rerank.eval.standings import Row, Standings
from mixlm_rerank.eval.tables import listed

__all__ = ["summary"]

JUDGED_GAP = 0.05  # so many fewer judged documents than the baseline has may hide what a system is worth
PERMUTATIONS = 10_000


def summary(table: Standings, judged: str | None) -> list[Finding]:
    """What holds, in a few sentences. A difference that no test finds significant is called just that.

    ``judged``: the measure that says how many of the shown documents are judged, "Judged@10"; None if not measured.
    """
    mixlm = best_of(table, "MixLM")
    reference = table.row(table.teacher) or best_of(table, "full text")
    texts = {
        "MixLM": _place(table, mixlm) if mixlm else "",
        "Against the full text": _against(table, mixlm, reference)
        if mixlm and reference and mixlm is not reference
        else "",
        "Losses": _losses(table),
        "Read with care": _unjudged(table, judged) if judged else "",
    }
    return [*answers(table), *(Finding(head, text) for head, text in texts.items() if text)]


def _place(table: Standings, row: Row) -> str:
    if row.mean is None:
        return ""
    means = [round(other.mean or 0.0, numbers.DECIMALS) for other in table.ranked]
    place = 1 + sum(mean > round(row.mean, numbers.DECIMALS) for mean in means)
    budgets = sum(other.kind == "MixLM" for other in table.ranked)
    best_of_all = f", the best of {budgets} MixLM here" if budgets > 1 else ""
    text = f"{row.name}{best_of_all}: {table.measure} {numbers.measure(row.mean)}, place {place} of {len(means)}."
    found = {n: c.verdict for n, c in zip(table.collections, row.cells, strict=True) if c and c.verdict is not None}
    alone_at_top = row.best and sum(other.best for other in table.rows) == 1  # the first answer is of it
    return text + (f" Against {table.against}: {_by_verdict(found)}." if found and not alone_at_top else "")


def _against(table: Standings, row: Row, full: Row) -> str:
    if not row.mean or not full.mean:
        return ""
    text = f"{row.name} reaches {numbers.percent(row.mean / full.mean)} of the {table.measure} of {full.name}"
    if row.documents_per_second and full.documents_per_second:
        factor = numbers.ratio(row.documents_per_second / full.documents_per_second)
        ours, theirs = numbers.speed(row.documents_per_second), numbers.speed(full.documents_per_second)
        text += f" and ranks {factor} as many documents a second ({ours} against {theirs})"
    pairs = {
        collection: (full.by_query(column, table.measure), row.by_query(column, table.measure))
        for column, collection in enumerate(table.collections)
    }
    tested = compare_pairs(pairs, permutations=PERMUTATIONS)  # Holm-corrected over the collections
    verdicts = {found.system: found.verdict for found in tested}
    return f"{text}. Tested against {full.name}: {_by_verdict(verdicts)}." if verdicts else f"{text}."


def _losses(table: Standings) -> str:
    """Of all MixLM, unless the one that there is was described already."""
    rows = [row for row in table.rows if row.kind == "MixLM" and any(c and c.verdict is not None for c in row.cells)]
    if len(rows) < 2:
        return ""
    parts = []
    for row in rows:
        cells = zip(table.collections, row.cells, strict=True)
        lost = [name for name, cell in cells if cell and cell.verdict == Verdict.WORSE]
        parts += [f"{row.name} on {listed(lost)}"] if lost else []
    if parts:
        return f"Significantly worse than {table.against}: {'; '.join(parts)}."
    return f"No MixLM is significantly worse than {table.against} on any collection."


def _unjudged(table: Standings, judged: str) -> str:
    baseline = table.row(table.baseline)
    gaps = []
    for column, collection in enumerate(table.collections):
        usual = baseline and baseline.value(column, judged)
        for row in table.rows:
            value = row.value(column, judged)
            if row.kind != "oracle" and usual is not None and value is not None and usual - value > JUDGED_GAP:
                gaps.append((usual - value, row.name, collection, value, usual))
    if baseline is None or not gaps:
        return ""
    _, name, collection, value, usual = max(gaps)
    return (
        "Some systems bring up documents that nobody judged; those count as not relevant, so their true values may be "
        f"higher. The widest gap: {judged} of {name} is {numbers.measure(value)} on {collection}, that of "
        f"{baseline.name} {numbers.measure(usual)}."
    )


def _by_verdict(verdicts: Mapping[str, Verdict]) -> str:
    """ "significantly better on A and B; no significant difference on C"."""
    parts = []
    for kind in sorted(set(verdicts.values()), reverse=True):
        names = [name for name, found in verdicts.items() if found == kind]
        every = f"{'all' if kind else 'any of the'} {len(names)} collections"
        parts.append(f"{kind.words} on {every if len(names) == len(verdicts) > 1 else listed(names)}")
    return "; ".join(parts)
