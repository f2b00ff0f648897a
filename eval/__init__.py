"""How good is a ranking? Measures over runs."""

from mixlm_rerank.eval.measures import DEFAULT_MEASURES, evaluate

__all__ = ["DEFAULT_MEASURES", "evaluate"]
