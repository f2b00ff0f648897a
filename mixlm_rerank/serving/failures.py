"""What is answered when a request cannot be: a status, and a message that says what to do."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mixlm_rerank.errors import IndexDamaged, IndexMismatch, MissingDocuments, MixLMError, StoreUnavailable
from mixlm_rerank.serving.schemas import CONTRACTS

__all__ = ["STATUS", "RequestFailed", "answer_failures", "status_of"]

# What the documented routes answer beside 200 (and 405 for another method, 500 for a fault of ours).
STATUS = {
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


class RequestFailed(Exception):
    """Answered with ``status`` and ``message``; ``retry_after`` in seconds."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if status == 408:  # the rest of the body is not waited for
            self.headers["Connection"] = "close"


def status_of(error: MixLMError) -> int:
    """The status for what the library raises."""
    for kind, status in ((MissingDocuments, 404), (IndexMismatch, 409), (StoreUnavailable, 503), (IndexDamaged, 503)):
        if isinstance(error, kind):
            return status
    return 400


def answer_failures(app: FastAPI) -> None:
    """Every error is ``{"message": ...}``; those that are RequestFailed, the guard answers."""

    @app.exception_handler(MixLMError)
    async def refused(request: Request, error: MixLMError) -> JSONResponse:
        return _failure(status_of(error), str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", *CONTRACTS)) or "body"
        kind = request.headers.get("content-type", "application/json")
        if where == "body" and "json" not in kind:
            return _failure(400, f"the body came as {kind}: send JSON, with Content-Type: application/json")
        if first["type"] == "json_invalid":
            return _failure(400, f"the body is no valid JSON: {first['ctx']['error']}")
        return _failure(400 if first["type"] == "missing" else 422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        answer = _failure(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        answer.headers.update(error.headers or {})  # Allow, with 405
        return answer


def _failure(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status)
