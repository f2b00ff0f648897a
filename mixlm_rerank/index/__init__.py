"""The token index: docid -> embedding tokens of one corpus under one item encoder."""

from .manifest import Fetched, TokenStore, content_hash
from .quantiser import Quantiser
from .redis_store import RedisTokenStore
from .token_index import TokenIndex, open_store

__all__ = ["Fetched", "Quantiser", "RedisTokenStore", "TokenIndex", "TokenStore", "content_hash", "open_store"]
