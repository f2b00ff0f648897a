"""A report, read back: what a browser would find in the page."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mixlm_rerank.eval.report import write_report
from mixlm_rerank.eval.results import Evaluation

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements, texts and tables of a page.

    Attributes:
        tags: (element, attributes) in order.
        text: all text outside of style and script, blanks joined.
        tables: (label, rows of cells' texts) in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[tuple[str, list[list[str]]]] = []
        self._texts: list[str] = []
        self._open: list[str] = []
        self._label = ""
        self.feed(html)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self._open.append(tag)
        self._label = found.get("aria-label") or self._label
        if tag == "table":
            self.tables.append((self._label, []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] in (["style"], ["script"]):
            return
        self._texts.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][1][-1][-1] += data

    def table(self, label: str) -> dict[str, list[str]]:
        """First column -> other columns, of the first table whose label begins so."""
        rows = next(rows for name, rows in self.tables if name.startswith(label))
        return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Evaluation], Page]:
    """``read(evaluation)``: its report, written and read back."""
    return lambda evaluation: Page(write_report(evaluation, tmp_path / "report").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def realistic_file(realistic: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the evaluation of a usual size."""
    return write_report(realistic, tmp_path_factory.mktemp("realistic"))


@pytest.fixture(scope="session")
def realistic_page(realistic_file: Path) -> Page:
    """The same, read back."""
    return Page(realistic_file.read_text(encoding="utf-8"))
