"""What a corpus is: how many documents, and a hash of them all in whatever order. Ties what was built to its corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..types import Document

__all__ = ["CorpusIdentity", "identify"]


@dataclass
class CorpusIdentity:
    """Grows document by document; documents without text do not count, as no first stage can find them.

    >>> a, b = Document("1", "dog"), Document("2", "cat")
    >>> identify([a, b]) == identify([b, Document("3", " "), a]) != identify([a])
    True
    """

    documents: int = 0
    total: int = 0  # of the documents' hashes: their order does not matter

    def add(self, document: Document) -> None:
        if not document.content.strip():
            return
        fields = (document.docid, document.title, document.text)
        encoded = [field.encode("utf-8", "replace") for field in fields]
        digest = hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in encoded))
        self.documents += 1
        self.total = (self.total + int.from_bytes(digest.digest(), "big")) % 2**256

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        return f"{self.total:064x}"


def identify(documents: Iterable[Document]) -> CorpusIdentity:
    """Reads the whole corpus once."""
    identity = CorpusIdentity()
    for document in documents:
        identity.add(document)
    return identity
