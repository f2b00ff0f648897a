"""Several pairs of systems, each tested on its own queries, corrected for how many they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mixlm_rerank.eval.significance import PERMUTATIONS, Comparison, compare, holm

__all__ = ["compare_pairs"]

Values = Mapping[str, float]


def compare_pairs(
    pairs: Mapping[str, tuple[Values, Values]], *, permutations: int = PERMUTATIONS
) -> dict[str, Comparison]:
    """The second of each pair against the first, as :func:`compare` does it; Holm-corrected over the pairs.

    Args:
        pairs: name -> (qid -> value before, qid -> value after). A pair without values, or with values for different
            queries, is left out.
        permutations: draws of the randomisation test.
    """
    found = {}
    for name, (before, after) in pairs.items():
        if before and before.keys() == after.keys():
            (comparison,) = compare({"before": before, "after": after}, "before", permutations=permutations)
            found[name] = replace(comparison, system=name)
    p_t = holm([comparison.p_t for comparison in found.values()])
    p_randomisation = holm([comparison.p_randomisation for comparison in found.values()])
    return {
        name: replace(found[name], p_t=t, p_randomisation=randomisation)
        for name, t, randomisation in zip(found, p_t, p_randomisation, strict=True)
    }
