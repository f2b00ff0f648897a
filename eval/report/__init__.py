"""Reports of evaluations: one HTML page, tables for a README and a paper, and the comparison of two evaluations."""

from mixlm_rerank.eval.report.compared import comparison_html, comparison_text
from mixlm_rerank.eval.report.findings import answers
from mixlm_rerank.eval.report.grids import latex_table, markdown_table
from mixlm_rerank.eval.report.page import write_report

__all__ = ["answers", "comparison_html", "comparison_text", "latex_table", "markdown_table", "write_report"]
