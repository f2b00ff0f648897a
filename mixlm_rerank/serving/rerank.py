"""From a request to candidates and their cost, and from ranked documents to a response."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mixlm_rerank.documents import Documents
from mixlm_rerank.model.template import has_content
from mixlm_rerank.ranking import probability
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.serving.catalogue import Catalogue
from mixlm_rerank.serving.schemas import RequestFailed, RerankRequest, RerankResponse, Result, TextDocument
from mixlm_rerank.types import Candidate, Missing, ScoredDoc

__all__ = ["Plan", "plan", "plan_in_full", "respond"]

# Characters per token position: in the part of a text that a model reads, and in the rest (tokenized, then cut off).
READ, SKIPPED = 4, 400


@dataclass(frozen=True)
class Plan:
    """A checked request: its reranker, its documents. ``costs``: token positions of each candidate.

    ``in_full``: the reranker that reads the best documents in full, if any are to be read.
    """

    model: str
    index: str | None
    reranker: Reranker
    query: str
    documents: Documents
    texts: Sequence[str | None]
    costs: Sequence[int]
    in_full: Reranker | None = None

    @property
    def reads_in_full(self) -> bool:
        return self.reranker is self.in_full


def plan(request: RerankRequest, catalogue: Catalogue, tokens: int) -> Plan:
    """Check a request. ``tokens``: limit for the texts that must be encoded. Raises RequestFailed, MixLMError."""
    if not has_content(request.query):
        raise RequestFailed(400, "query is empty: the ranker reads its text")
    given, docids = request.documents, request.document_ids
    if not given and not docids:
        raise RequestFailed(400, "no documents: give documents (texts), document_ids (of an index), or both")
    if given is not None and docids is not None and len(given) != len(docids):
        raise RequestFailed(
            400, f"{len(given)} documents and {len(docids)} document_ids: give one of each, or one kind"
        )
    index = catalogue.index_name(request.index, by_docid=docids is not None)
    model = catalogue.model_name(request.model, index)
    texts: list[str | None] = [None] * len(docids or ())
    if given is not None:
        texts = [_text(document, request.rank_fields, place) for place, document in enumerate(given)]
    missing: Missing = request.missing or ("last" if given is None else "encode")
    if docids is None:
        index, missing = None, "encode"  # only texts: no index is needed
    reranker, in_full = catalogue.reranker(model, index, missing, request.tokens), None
    if request.verify_top:
        if request.score_threshold is not None:
            raise RequestFailed(400, "score_threshold and verify_top: scores of two kinds have no common threshold")
        in_full = catalogue.reranker(model, index, missing, request.tokens, in_full=True)
    cut = [catalogue.cut(model, text, request.max_tokens_per_doc) for text in texts]
    documents = Documents(reranker, cut, docids)
    query = catalogue.cut(model, request.query) or ""
    costs = _costs(reranker, query, documents.candidates, tokens)
    return Plan(model, index, reranker, query, documents, texts, costs, in_full)


def plan_in_full(made: Plan, best: Sequence[ScoredDoc], texts: Mapping[str, str | None], tokens: int) -> Plan:
    """A second plan, which reads the ``best`` documents of the first one in full.

    ``texts``: docid -> text, of documents that came without. ``tokens``: limit for all of them. Raises RequestFailed.
    """
    assert made.in_full is not None
    read = [texts.get(doc.docid) if doc.text is None else doc.text for doc in best]
    if None in read:
        raise RequestFailed(
            400, f"no text of {best[read.index(None)].docid!r}, which verify_top reads: send documents with the request"
        )
    documents = Documents(made.in_full, read, None if made.index is None else [doc.docid for doc in best])
    judge, config = made.in_full.verify_with, made.in_full.model.config
    longest = config.max_document_tokens if judge is None else judge.max_seq_length or sys.maxsize
    if made.in_full.index.manifest.passages:
        longest = sys.maxsize  # all passages are read
    query = _positions(made.query, config.max_query_tokens)
    costs = [query + _positions(hit.text or "", longest) for hit in documents.candidates]
    if sum(costs) > tokens:
        size = f"about {sum(costs):,} tokens, over the limit of {tokens:,} a request"
        raise RequestFailed(413, f"the texts that verify_top reads have {size}: give a smaller one")
    return replace(made, reranker=made.in_full, documents=documents, costs=costs)


def respond(request: RerankRequest, made: Plan, docs: Sequence[ScoredDoc], timings: dict[str, float]) -> RerankResponse:
    """``relevance_score`` is the sigmoid of the log-odds, 0 for missing documents; with ``raw_scores`` the log-odds."""
    results = []
    everything = made.documents.placed(docs)
    least = request.score_threshold
    for place, doc in everything[: request.top_n]:
        text = made.texts[place]
        score = doc.score if request.raw_scores else probability(doc.score, missing=doc.missing)
        if least is not None and (doc.missing or score < least):
            break
        results.append(
            Result(
                index=place,
                relevance_score=score,
                document=TextDocument(text=text) if request.return_documents and text is not None else None,
                document_id=None if request.document_ids is None else request.document_ids[place],
                missing=doc.missing or None,
            )
        )
    return RerankResponse(
        id=str(uuid.uuid4()),
        model=made.model,
        results=results,
        meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "timings_ms": timings},
        usage={"documents": len(made.texts), "missing": sum(doc.missing for _, doc in everything)},
    )


def _text(document: str | TextDocument, fields: Sequence[str] | None, place: int) -> str:
    """The text to encode. Raises RequestFailed if there is none."""
    if isinstance(document, str):
        return document
    held = document.model_dump(exclude_unset=True)
    given = [str(held[name]) for name in fields or ["text"] if held.get(name) is not None]
    if not given:
        wanted = f"one of rank_fields ({', '.join(fields)})" if fields else '"text" (name other fields in rank_fields)'
        raise RequestFailed(422, f"documents.{place} has no text: give a string, or an object with {wanted}")
    return ". ".join(filter(has_content, given))  # as Document.content joins title and text


def _costs(reranker: Reranker, query: str, candidates: Sequence[Candidate], limit: int) -> list[int]:
    """Estimated token positions of each candidate: what the ranker reads of it, and its text if that must be encoded.

    The query, read once, is added to the first candidate. Raises RequestFailed if the texts take more than ``limit``.
    """
    costs = [0] * len(candidates)
    config = reranker.model.config
    for place in reranker.unread(candidates):
        costs[place] = _positions(candidates[place].text or "", config.max_document_tokens)
    if sum(costs) > limit:
        size = f"about {sum(costs):,} tokens, over the limit of {limit:,} a request"
        raise RequestFailed(413, f"the texts have {size}: send fewer or shorter ones, or document_ids of an index")
    prefix = _positions(query, config.max_query_tokens)
    costs[0] += prefix
    _, own = reranker.model.ranker.positions(prefix, reranker.tokens)
    return [cost + own for cost in costs]


def _positions(text: str, most: int) -> int:
    return min(most, len(text) // READ + 1) + len(text) // SKIPPED
