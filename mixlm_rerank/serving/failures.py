"""What is answered when a request cannot be: a status, and a message that says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from mixlm_rerank.errors import IndexDamaged, IndexMismatch, MissingDocuments, MixLMError, StoreUnavailable
from mixlm_rerank.serving.schemas import CONTRACTS

__all__ = ["FAILURES", "AnyJson", "Failure", "RequestFailed", "answer_failures"]

# What the documented routes answer beside 200 (and 405 for another method, 500 for a fault of ours).
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
    """Answered with ``status``, ``message`` and ``headers``, by the guard."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers

    @classmethod
    def of(cls, error: MixLMError) -> RequestFailed:
        """The answer to what the library raises."""
        return cls(next((status for kind, status in OF_LIBRARY if isinstance(error, kind)), 400), str(error))

    def response(self) -> JSONResponse:
        return AnyJson({"message": self.message}, self.status, self.headers)


class AnyJson(JSONResponse):
    """UTF-8; or JSON's escapes, where a docid or a text holds half a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def answer_failures(app: FastAPI) -> None:
    """The errors of FastAPI in the form of all others, ``{"message": ...}``."""

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
