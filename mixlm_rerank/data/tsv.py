"""MS MARCO's TSV files: passages, and documents with url and title."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from ..types import Document
from .lines import lines

__all__ = ["TsvCorpus"]

COLUMNS = {2: "2 (docid, text)", 4: "4 (docid, url, title, body)"}


class TsvCorpus:
    """``docid <tab> text`` or ``docid <tab> url <tab> title <tab> body``, the same on every line; or its gzip.

    Raises InputError, while it is read, for a line of another width and for an empty docid.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[Document]:
        width = 0
        for number, line in lines(self.path):
            where = f"{self.path}, line {number}"
            columns = line.split("\t")
            width = width or len(columns)
            if len(columns) != width or width not in COLUMNS:
                expected = COLUMNS.get(width) or " or ".join(COLUMNS.values())
                raise InputError(f"{where}: {len(columns)} columns, expected {expected}")
            docid = columns[0].strip()
            if not docid:
                raise InputError(f"{where}: no docid in the first column")
            yield Document(docid, columns[-1], columns[2] if width == 4 else "")
