"""What the parts exchange: documents, candidates, ranked documents. Ids are ``str``, scores Python ``float``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from .errors import InputError

if TYPE_CHECKING:
    from .model import MixLM
    from .onnx import OnnxMixLM

__all__ = ["Candidate", "Document", "Missing", "Model", "ScoredDoc", "Texts"]

# The model that encodes documents and scores candidates: in PyTorch, or exported.
Model: TypeAlias = "MixLM | OnnxMixLM"

# What happens to candidates that the token index lacks: see Reranker.
Missing = Literal["error", "encode", "last"]

# docid -> text: a mapping, or a function that looks up many docids at once (and leaves out those it does not know).
Texts = Mapping[str, str] | Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus. Raises InputError if a field is not a string.

    Examples:
        >>> Document("d1", "It barks.", title="The dog").content
        'The dog. It barks.'
    """

    docid: str
    text: str
    title: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.docid, str) and isinstance(self.text, str) and isinstance(self.title, str)):
            raise InputError(
                f"docid, text and title of a Document must be strings, not {self.docid!r:.40}, {self.text!r:.40}, "
                f"{self.title!r:.40}"
            )

    @property
    def content(self) -> str:
        """The string that the item encoder reads: ``title. text``."""
        return f"{self.title}. {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Candidate:
    """A first-stage hit. ``text`` is needed only if the document is not in the token index, or for ``verify_top``."""

    docid: str
    score: float
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ScoredDoc:
    """A ranked document.

    ``score`` falls with ``rank`` (1 is the best). Documents that were not scored have ``missing=True`` and a score
    below -10,000, which no log-odds reach, so a run keeps their order. These are documents that are not in the token
    index (``missing="last"``), documents without text, and all documents of an empty query. ``text`` is the candidate's
    own; it distinguishes passages with the same docid.
    """

    docid: str
    score: float
    rank: int
    first_stage_score: float
    missing: bool = False
    text: str | None = field(default=None, compare=False, repr=False)
