"""What came of a distillation, in words."""

from __future__ import annotations

from collections.abc import Mapping

from mixlm_rerank import numbers
from mixlm_rerank.data.fidelity import Fidelity

__all__ = ["verdict"]

FEW = 20  # queries: the standard error of a mean overlap is then about .04


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
