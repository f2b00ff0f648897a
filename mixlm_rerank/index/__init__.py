"""The token index: docid -> embedding tokens of one corpus under one item encoder."""

from .protocol import Fetched, TokenStore
from .token_index import TokenIndex

__all__ = ["Fetched", "TokenIndex", "TokenStore"]
