"""Requests, responses and errors: Cohere's fields with our extensions; and those of Text Embeddings Inference (TEI)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, StrictStr, Tag
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from mixlm_rerank.errors import IndexDamaged, IndexMismatch, MissingDocuments, MixLMError, StoreUnavailable

__all__ = [
    *("AnyJson", "AnyRequest", "BatchRequest", "BatchResponse", "FAILURES", "Failure", "MAX_DOCUMENTS"),
    *("RequestFailed", "RerankRequest", "RerankResponse", "Result", "TeiRequest", "TeiResult", "TextDocument"),
    "answer_failures",
]

MAX_DOCUMENTS = 10_000
MAX_REQUESTS = 1_000  # in one batch

# Strict: "3" is no number, and 0 is not false.
Count = Annotated[int, Field(strict=True, ge=1)]


class TextDocument(BaseModel):
    """A document with a text; other fields are read if ``rank_fields`` names them."""

    model_config = ConfigDict(extra="allow")

    text: StrictStr = ""


def _one_of_both(value: object) -> object:
    """Raise one error for a value of neither type, instead of one error for each type."""
    if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("text", ""), str)):
        return value
    raise PydanticCustomError("document", 'give a text, or an object with "text"')


class RerankRequest(BaseModel):
    """Documents by text, by docid, or both side by side. Fields that are not named here are ignored."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "anyOf": [{"required": ["documents"]}, {"required": ["document_ids"]}],
            "examples": [
                {"query": "what do dogs bark at?", "documents": ["A dog barks at the moon.", "Cats sleep all day."]},
                {"query": "what do dogs bark at?", "document_ids": ["d1", "d2"], "index": "wiki", "top_n": 1},
            ],
        },
    )

    query: StrictStr = Field(json_schema_extra={"pattern": r"\S"})
    """The query."""
    documents: list[Annotated[StrictStr | TextDocument, BeforeValidator(_one_of_both)]] | None = Field(
        default=None, max_length=MAX_DOCUMENTS
    )
    """Texts, encoded on the fly unless document_ids are in the index."""
    document_ids: list[StrictStr] | None = Field(default=None, max_length=MAX_DOCUMENTS)
    """Docids of the index: the fast way. Aligned with documents."""
    model: StrictStr | None = None
    """A model of this server; by default the index's, or the first."""
    index: StrictStr | None = None
    """An index of this server; by default the only one."""
    top_n: Count | None = None
    """How many results; by default all."""
    return_documents: StrictBool = False
    """Give the texts back with the results."""
    rank_fields: list[StrictStr] | None = None
    """Fields of document objects to read, in this order; by default text."""
    max_tokens_per_doc: Count | None = None
    """Cut texts after so many tokens."""
    missing: Literal["error", "encode", "last"] | None = None
    """document_ids that the index lacks: by default encoded where there is a text, else last."""
    raw_scores: StrictBool = False
    """Log-odds instead of their sigmoid."""
    score_threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Leave out results whose relevance_score is lower, and documents that were not scored."""
    tokens: Count | None = None
    """Token budget; by default all of the model's."""
    verify_top: Annotated[int, Field(strict=True, ge=0, le=MAX_DOCUMENTS)] = 0
    """Read so many of the best documents in full, by the server's cross-encoder or else the model, and reorder them."""


class Result(BaseModel):
    """``index``: the document's place in the request. ``missing``: neither in the index nor encoded, and last."""

    index: int
    relevance_score: float
    document: TextDocument | None = None
    document_id: str | None = None
    missing: bool | None = None


class RerankResponse(BaseModel):
    """Best first."""

    id: str
    model: str
    results: list[Result]
    meta: dict[str, Any]
    usage: dict[str, Any]


class BatchRequest(BaseModel):
    """Many requests in one call; their documents are scored together."""

    requests: list[RerankRequest] = Field(min_length=1, max_length=MAX_REQUESTS)


class BatchResponse(BaseModel):
    """One response a request, in their order."""

    responses: list[RerankResponse]


class TeiRequest(BaseModel):
    """What Hugging Face's Text Embeddings Inference takes at /rerank. Texts that are too long are always cut."""

    query: StrictStr
    texts: list[StrictStr] = Field(max_length=MAX_DOCUMENTS)
    raw_scores: StrictBool = False
    return_text: StrictBool = False

    def as_ours(self) -> RerankRequest:
        return RerankRequest(
            query=self.query, documents=[*self.texts], raw_scores=self.raw_scores, return_documents=self.return_text
        )


class TeiResult(BaseModel):
    """One of the list that Text Embeddings Inference answers, best first."""

    index: int
    score: float
    text: str | None = None

    @classmethod
    def of(cls, result: Result) -> TeiResult:
        text = result.document.text if result.document else None
        return cls(index=result.index, score=result.relevance_score, text=text)


CONTRACTS = ("cohere", "tei")  # occur in the locations of validation errors
AnyRequest = Annotated[
    Annotated[RerankRequest, Tag("cohere")] | Annotated[TeiRequest, Tag("tei")],
    Discriminator(lambda body: "tei" if isinstance(body, dict) and "texts" in body else "cohere"),
]

# Statuses of the documented routes in addition to 200 (and 405 for another method, 500 for an internal error).
FAILURES = {
    400: "An empty query or no documents, documents and document_ids of different lengths.",
    401: "No API key, or a wrong one.",
    404: "An unknown model, index or path; document_ids that the index lacks, under missing=error.",
    408: "The body did not arrive within the deadline.",
    409: "An index that another model built.",
    413: "A body or texts over the limit.",
    422: "A field of the wrong type, or out of its range.",
    429: "The queue is full, or all bodies together are too large: try again after Retry-After seconds.",
    503: "Shutting down, or the index's store does not answer.",
    504: "The request took longer than its deadline.",
}
OF_LIBRARY = ((MissingDocuments, 404), (IndexMismatch, 409), (StoreUnavailable, 503), (IndexDamaged, 503))


class Failure(BaseModel):
    """Of every error."""

    message: str


class RequestFailed(Exception):
    """A failed request, which the guard answers with ``status``, ``message`` and ``headers``."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    @classmethod
    def of(cls, error: MixLMError) -> RequestFailed:
        """The failure for an error that the library raises."""
        return cls(next((status for kind, status in OF_LIBRARY if isinstance(error, kind)), 400), str(error))

    def response(self) -> JSONResponse:
        return AnyJson({"message": self.message}, self.status, self.headers)


class AnyJson(JSONResponse):
    """JSON in UTF-8, or with escapes if a docid or text holds half a surrogate pair, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def answer_failures(app: FastAPI) -> None:
    """Answer FastAPI's own errors in the format of all others, ``{"message": ...}``."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", *CONTRACTS)) or "body"
        kind = request.headers.get("content-type", "application/json")
        status, message = 400 if first["type"] == "missing" else 422, f"{where}: {first['msg']}"
        if where == "body" and "json" not in kind:
            status, message = 400, f"the body came as {kind}: send JSON, with Content-Type: application/json"
        elif first["type"] == "json_invalid":
            status, message = 400, f"the body is no valid JSON: {first['ctx']['error']}"
        return RequestFailed(status, message).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return RequestFailed(error.status_code, message, error.headers).response()  # its headers: Allow, with 405
