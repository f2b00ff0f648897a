"""What an evaluation found, as one page to read: a single HTML file, and the big table for a README and a paper."""

from mixlm_rerank.eval.report.page import write_report

__all__ = ["write_report"]
