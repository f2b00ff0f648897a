"""Benchmarks (``mixlm-rerank bench``): speed against the alternatives and against what this machine can do."""
