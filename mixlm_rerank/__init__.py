"""Rerank with a language model that reads the query as text and documents as a few precomputed embedding tokens."""

from .errors import MixLMError
from .model import MixLM
from .types import Candidate, Document, ScoredDoc

__all__ = ["Candidate", "Document", "MixLM", "MixLMError", "ScoredDoc"]
