"""Sameness before speed: nothing is timed that does not give the scores that it should."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.eval.bench.contenders import Peers, Task
from mixlm_rerank.eval.significance import scipy_stats
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer

__all__ = ["check_mixlm", "check_onnx", "check_same", "off_in_int8"]

MIXLM_TOLERANCE = 1e-4  # log-odds, float32: the promise of SharedPrefixScorer
ONNX_TOLERANCE = 1e-3  # logits, before quantisation


def check_same(found: float, tolerance: float, what: str) -> float:
    """The largest difference found. Raises MixLMError if it is not within tolerance."""
    if not found <= tolerance:
        raise MixLMError(f"nothing is timed: {what} differ by {found:.2g}, more than {tolerance:g}")
    return found


def check_mixlm(model: MixLM, index: TokenIndex, tasks: Sequence[Task], budgets: Sequence[int], checked: int) -> float:
    """Largest difference in log-odds between the fast scorer and the reference, over tasks and budgets.

    The fast one scores all candidates of a task together; ``checked`` of them, all over the list, are compared.
    """
    fast, reference = SharedPrefixScorer(model), ReferenceScorer(model)
    largest = 0.0
    for task in tasks:
        for tokens in budgets:
            candidates = torch.from_numpy(index.fetch(task.docids, tokens).tokens)
            rows = torch.linspace(0, len(candidates) - 1, min(checked, len(candidates))).long()
            difference = fast.score(task.query, candidates)[rows] - reference.score(task.query, candidates[rows])
            largest = max(largest, float(difference.abs().max()))
    return check_same(largest, MIXLM_TOLERANCE, "MixLM's fast scores and the reference's")


def off_in_int8(
    model: MixLM, int8: MixLM, index: TokenIndex, tasks: Sequence[Task], budgets: Sequence[int]
) -> dict[str, float]:
    """What int8 changes, over tasks and budgets: nothing is promised, so nothing is refused.

    Returns:
        ``difference``: the largest in log-odds. ``kendall_tau``: of the orders of a task's candidates, the mean.
    """
    exact, near = SharedPrefixScorer(model), SharedPrefixScorer(int8)
    differences, taus = [], []
    for task in tasks:
        for tokens in budgets:
            candidates = torch.from_numpy(index.fetch(task.docids, tokens).tokens)
            expected, found = exact.score(task.query, candidates), near.score(task.query, candidates)
            differences.append(float((found - expected).abs().max()))
            taus.append(float(scipy_stats().kendalltau(expected, found).statistic))
    return {"difference": max(differences), "kendall_tau": float(np.mean(taus))}


def check_onnx(peers: Peers, tasks: Sequence[Task]) -> dict[str, float]:
    """The graph before quantisation against PyTorch, and what quantisation leaves of the scores.

    Returns:
        ``difference``: the largest in logits before quantisation. ``correlation``: Pearson's, of int8 and PyTorch.
    """
    expected = np.concatenate([peers.plain.scores(task.query, task.texts) for task in tasks])
    exact = np.concatenate([peers.onnx_float32.scores(task.query, task.texts) for task in tasks])
    int8 = np.concatenate([peers.onnx.scores(task.query, task.texts) for task in tasks])
    difference = check_same(
        float(np.abs(exact - expected).max()), ONNX_TOLERANCE, "the ONNX graph's and PyTorch's scores"
    )
    return {"difference": difference, "correlation": float(np.corrcoef(int8, expected)[0, 1])}
