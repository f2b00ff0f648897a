"""Rerank with a language model that reads the query as text and documents as a few precomputed embedding tokens."""

from .errors import MixLMError
from .index import TokenIndex
from .model import MixLM
from .reranker import Reranker
from .types import Candidate, Document, ScoredDoc

__all__ = ["Candidate", "Document", "MixLM", "MixLMError", "Reranker", "ScoredDoc", "TokenIndex"]
