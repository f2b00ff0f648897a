"""A list of documents, as other libraries pass them, to candidates and back to positions in that list."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .arguments import docid_of, is_nothing
from .errors import InputError
from .ranking import UNSCORED
from .texts import NoIndex
from .types import Candidate, Missing, ScoredDoc

if TYPE_CHECKING:
    from .reranker import Reranker

__all__ = ["Documents", "Placed", "check_pairs", "docid_in", "marked", "rank_documents", "score_pairs"]

Placed = tuple[int, ScoredDoc]  # one of the caller's documents: its position in the list, and its result


class Documents:
    """The caller's documents as candidates.

    A docid is looked up in the index. A document without a docid is identified by its text, which is encoded on the
    fly; without an index, so are all texts. Documents with the same docid (or text) are scored once, and all get that
    score. Passages of a docid that the index lacks are encoded separately.

    Args:
        texts: of each document, or ``None`` if only its docid is known.
        docids: of each document, or ``None`` if it has none; numbers become strings.
        scores: of the first stage; if any is ``None`` or NaN, the list's order is the first-stage ranking.

    Raises:
        InputError: a text that is not a string; a document without docid, unless ``missing`` is ``"encode"``.
    """

    def __init__(
        self,
        reranker: Reranker,
        texts: Sequence[str | None],
        docids: Sequence[Any] | None = None,
        scores: Sequence[float | None] | None = None,
    ) -> None:
        unread = isinstance(reranker.index, NoIndex) and reranker.missing == "encode"
        ids = [None if docids is None or (unread and text is not None) else docids[n] for n, text in enumerate(texts)]
        ranking = scores if scores and not any(map(is_nothing, scores)) else range(0, -len(texts), -1)
        self.candidates: list[Candidate] = []
        self._places: dict[tuple[str, str | None], list[int]] = {}
        passages: dict[str, str | None] = {}  # docid -> the text of its first one, where texts are not encoded
        for place, text in enumerate(texts):
            docid = _docid(place, text, ids[place], reranker.missing)
            text = text if reranker.missing == "encode" else passages.setdefault(docid, text)
            places = self._places.setdefault((docid, text), [])
            if not places:
                self.candidates.append(Candidate(docid, float(ranking[place] or 0.0), text))
            places.append(place)
        self.candidates.sort(key=lambda hit: -hit.score)

    def placed(self, docs: Iterable[ScoredDoc]) -> list[Placed]:
        """All of the caller's documents in the order of ``docs``."""
        return [(place, doc) for doc in docs for place in self._places[doc.docid, doc.text]]


def rank_documents(
    reranker: Reranker,
    query: str,
    texts: Sequence[str | None],
    docids: Sequence[Any] | None = None,
    scores: Sequence[float | None] | None = None,
) -> list[Placed]:
    """The caller's documents, best first. An empty list stays one. Raises as :class:`Documents` and the reranker."""
    documents = Documents(reranker, texts, docids, scores)
    return documents.placed(reranker.rerank(query, documents.candidates))


def docid_in(metadata: Mapping[str, Any], key: str, otherwise: Any) -> Any:
    """The docid that metadata holds under a key; ``otherwise`` if the key or its value is absent."""
    value = metadata.get(key)
    return otherwise if is_nothing(value) else value


def marked(metadata: Mapping[str, Any], doc: ScoredDoc, **more: Any) -> dict[str, Any]:
    """A copy of a document's metadata, with ``more``, and with ``missing: True`` if the document was not scored."""
    return {**metadata, **more, **({"missing": True} if doc.missing else {})}


def check_pairs(pairs: Sequence[Any]) -> None:
    """Raises InputError for anything but pairs of query and document."""
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise InputError(f"expected pairs (query, document text or Docid), not {pair!r}")


def score_pairs(reranker: Reranker, pairs: Sequence[tuple[str, str]], *, by_docid: bool = False) -> list[float]:
    """Log-odds of (query, text) or (query, docid) pairs, in their order; pairs of a query need not be adjacent.

    Below -10,000 for a document that was not scored: its sigmoid is 0.
    """
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    held = {}
    for query, own in places.items():
        given = [pairs[place][1] for place in own]
        held[query] = Documents(reranker, [None] * len(given), given) if by_docid else Documents(reranker, given)
    hits = {query: documents.candidates for query, documents in held.items()}
    ranked = reranker.rerank_batch({query: query for query in hits}, hits)
    scores = [UNSCORED] * len(pairs)  # stays for documents below a score_threshold
    for query, documents in held.items():
        for place, doc in documents.placed(ranked[query]):
            scores[places[query][place]] = doc.score
    return scores


def _docid(place: int, text: object, docid: object, missing: Missing) -> str:
    if text is not None and not isinstance(text, str):
        raise InputError(f"document {place}: its text is a {type(text).__name__}, not a string")
    known = docid_of(docid)
    if known is not None:
        return known
    if text is None:
        raise InputError(f"document {place} has neither a docid nor a text")
    if missing != "encode":
        raise InputError(
            f'document {place} has no docid, and the reranker is to encode no texts (missing="{missing}"): '
            'name the docids, or make it with missing="encode"'
        )
    # NUL: no docid that anyone would type.
    return "\0" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
