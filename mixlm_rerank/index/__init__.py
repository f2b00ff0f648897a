"""The token index: docid -> embedding tokens of one corpus under one item encoder."""

from .entries import content_hash
from .protocol import Fetched, TokenStore
from .quantiser import Quantiser
from .token_index import TokenIndex

__all__ = ["Fetched", "Quantiser", "TokenIndex", "TokenStore", "content_hash"]
