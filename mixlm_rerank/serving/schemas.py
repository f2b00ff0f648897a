"""Requests and responses of the rerank endpoint: Cohere's names, and ours beside them; and TEI's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag
from pydantic_core import PydanticCustomError

__all__ = [
    "AnyRequest",
    "BatchRequest",
    "BatchResponse",
    "CONTRACTS",
    "Failure",
    "Problem",
    "Report",
    "RerankRequest",
    "RerankResponse",
    "Result",
    "TeiRequest",
    "TeiResult",
    "TextDocument",
]

MAX_DOCUMENTS = 10_000
MAX_REQUESTS = 1_000  # in one batch

# Strict: "3" is no number, and 0 is not false.
Text = Annotated[str, StringConstraints(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]


class TextDocument(BaseModel):
    """A document with a text; other fields are read if ``rank_fields`` names them."""

    model_config = ConfigDict(extra="allow")

    text: Text = ""


def _one_of_both(value: object) -> object:
    """One error for what is neither, instead of one for each type."""
    if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("text", ""), str)):
        return value
    raise PydanticCustomError("document", 'give a text, or an object with "text"')


class RerankRequest(BaseModel):
    """Documents by text, by docid, or both side by side. Fields that are not named here are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["documents"]}, {"required": ["document_ids"]}],
            "examples": [
                {"query": "what do dogs bark at?", "documents": ["A dog barks at the moon.", "Cats sleep all day."]},
                {"query": "what do dogs bark at?", "document_ids": ["d1", "d2"], "index": "wiki", "top_n": 1},
            ],
        }
    )

    query: Text = Field(description="The query.", json_schema_extra={"pattern": r"\S"})
    documents: list[Annotated[Text | TextDocument, BeforeValidator(_one_of_both)]] | None = Field(
        default=None,
        max_length=MAX_DOCUMENTS,
        description="Texts, encoded on the fly unless document_ids are in the index.",
    )
    document_ids: list[Text] | None = Field(
        default=None,
        max_length=MAX_DOCUMENTS,
        description="Docids of the index: the fast way. Aligned with documents.",
    )
    model: Text | None = Field(
        default=None, description="A model of this server; by default the index's, or the first."
    )
    index: Text | None = Field(default=None, description="An index of this server; by default the only one.")
    top_n: Count | None = Field(default=None, description="How many results; by default all.")
    return_documents: Flag = Field(default=False, description="Give the texts back with the results.")
    rank_fields: list[Text] | None = Field(
        default=None, description="Fields of document objects to read, in this order; by default text."
    )
    max_tokens_per_doc: Count | None = Field(default=None, description="Cut texts after so many tokens.")
    missing: Literal["error", "encode", "last"] | None = Field(
        default=None,
        description="document_ids that the index lacks: by default encoded where there is a text, else last.",
    )
    raw_scores: Flag = Field(default=False, description="Log-odds instead of their sigmoid.")
    score_threshold: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Leave out results whose relevance_score is lower, and documents that were not scored.",
    )
    tokens: Count | None = Field(default=None, description="Token budget; by default all of the model's.")


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

    query: Text
    texts: list[Text] = Field(max_length=MAX_DOCUMENTS)
    raw_scores: Flag = False
    return_text: Flag = False

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
        text = None if result.document is None else result.document.text
        return cls(index=result.index, score=result.relevance_score, text=text)


CONTRACTS = ("cohere", "tei")  # stand in the places of validation errors
AnyRequest = Annotated[
    Annotated[RerankRequest, Tag("cohere")] | Annotated[TeiRequest, Tag("tei")],
    Discriminator(lambda body: "tei" if isinstance(body, dict) and "texts" in body else "cohere"),
]


class Failure(BaseModel):
    """Of every error."""

    message: str


class Problem(BaseModel):
    """``part``: ``ranker``, ``model NAME``, ``index NAME`` or ``reload``. ``message``: what is wrong, what to do."""

    part: str
    message: str


class Report(BaseModel):
    """Of a probe. ``status``: ``ok`` or ``ready``, else ``failing``; ``message`` then joins the problems."""

    status: str
    message: str | None = None
    models: list[str]
    indexes: list[str]
    problems: list[Problem]
