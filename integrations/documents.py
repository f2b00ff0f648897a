"""A list of documents, as other libraries hand them over, to candidates and back to places in that list."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixlm_rerank.errors import InputError
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.texts import NoIndex
from mixlm_rerank.types import Candidate, Missing, ScoredDoc

__all__ = ["UNSCORED", "Documents", "Placed", "docid_in", "rank_documents", "score_pairs"]

# Log-odds, in a list of pairs, of a document without text, or that the index lacks: its sigmoid is 0. A batch of pairs
# need not hold all candidates of its query, so "below all others" must be a number.
UNSCORED = -1e4


@dataclass(frozen=True)
class Placed:
    """One of the caller's documents: its place in the list, and its score (see :class:`ScoredDoc`)."""

    place: int
    score: float
    missing: bool


class Documents:
    """The caller's documents as candidates.

    A docid is looked up in the index. A document without one is known by its text, which is encoded on the fly; so are
    all texts where there is no index. Of documents that are known by the same docid (or text) one is scored, and all
    get its score.

    Args:
        texts: of each document, or ``None`` where only its docid is known.
        docids: of each document, or ``None`` where it has none; numbers become strings.
        scores: of the first stage; if one is ``None`` the list is its ranking.

    Raises:
        InputError: a text that is no string; a document without docid, where ``missing`` is not ``"encode"``.
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
        self._keys = [_key(place, text, ids[place], reranker.missing) for place, text in enumerate(texts)]
        first = dict(zip(reversed(self._keys), reversed(range(len(texts))), strict=True))  # key -> its first place
        ranking = scores if scores and None not in scores else range(0, -len(texts), -1)
        self.candidates = [
            Candidate(self._keys[place], float(ranking[place] or 0.0), texts[place]) for place in sorted(first.values())
        ]
        self.candidates.sort(key=lambda hit: -hit.score)

    def placed(self, docs: Iterable[ScoredDoc]) -> list[Placed]:
        """All of the caller's documents in the order of ``docs``."""
        places: dict[str, list[int]] = {}
        for place, key in enumerate(self._keys):
            places.setdefault(key, []).append(place)
        return [Placed(place, doc.score, doc.missing) for doc in docs for place in places[doc.docid]]


def rank_documents(
    reranker: Reranker,
    query: str,
    texts: Sequence[str | None],
    docids: Sequence[Any] | None = None,
    scores: Sequence[float | None] | None = None,
) -> list[Placed]:
    """The caller's documents, best first. An empty list stays one. Raises as :class:`Documents` and the reranker.

    Warns if the index has none of them: many libraries give every document an id of their own.
    """
    documents = Documents(reranker, texts, docids, scores)
    docs = reranker.rerank(query, documents.candidates) if documents.candidates else []
    if docs and all(doc.missing for doc in docs):
        warnings.warn(
            f"none of {len(docs)} documents was scored: {reranker.index} lacks {docs[0].docid!r}", stacklevel=3
        )
    return documents.placed(docs)


def docid_in(metadata: Mapping[str, Any], key: str, otherwise: Any) -> Any:
    """The docid that metadata holds under a key; ``otherwise`` where there is none, or nothing in its place."""
    value = metadata.get(key)
    return otherwise if value is None or value == "" else value


def score_pairs(reranker: Reranker, pairs: Sequence[tuple[str, str]], *, by_docid: bool = False) -> list[float]:
    """Log-odds of (query, text) or (query, docid), in their order; the pairs of a query need not be neighbours."""
    places: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        places.setdefault(query, []).append(place)
    held = {}
    for query, own in places.items():
        given = [pairs[place][1] for place in own]
        held[query] = Documents(reranker, [None] * len(given), given) if by_docid else Documents(reranker, given)
    hits = {query: documents.candidates for query, documents in held.items()}
    ranked = reranker.rerank_batch({query: query for query in hits}, hits)
    scores = [UNSCORED] * len(pairs)
    for query, documents in held.items():
        for each in documents.placed(ranked[query]):
            if not each.missing:
                scores[places[query][each.place]] = each.score
    return scores


def _key(place: int, text: object, docid: object, missing: Missing) -> str:
    if text is not None and not isinstance(text, str):
        raise InputError(f"document {place}: its text is a {type(text).__name__}, not a string")
    if docid is not None and docid != "":
        return str(docid)
    if text is None:
        raise InputError(f"document {place} has neither a docid nor a text")
    if missing != "encode":
        raise InputError(
            f'document {place} has no docid, and the reranker is to encode no texts (missing="{missing}"): '
            'name the docids, or make it with missing="encode"'
        )
    # NUL: no docid that one would type.
    return "\0" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
