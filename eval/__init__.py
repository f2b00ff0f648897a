"""Ranking quality, significance of differences, and fidelity of one system to another."""

from mixlm_rerank.data.measures import DEFAULT_MEASURES, Fidelity, evaluate, evaluate_queries, fidelity, oracle
from mixlm_rerank.eval.significance import Comparison, compare

__all__ = ["DEFAULT_MEASURES", "Comparison", "Fidelity", "compare", "evaluate", "evaluate_queries"]
__all__ += ["fidelity", "oracle"]
