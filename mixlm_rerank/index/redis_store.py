"""Redis as a shared cache of a token index: many rerankers on many machines, one copy of the embedding tokens.

Keys of an index called NAME:

- ``mixlm:NAME:manifest`` holds the manifest (JSON);
- ``mixlm:NAME:KIND:DOCID`` holds a document: a 16-byte hash of its text, then its record (packed by :class:`Quantiser`)
  or the records of its passages; KIND is the manifest's ``kind``;
- ``mixlm:NAME:lock`` is held by a running push.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import urldefrag

import numpy as np

from ..arguments import check_list_of_strings
from ..errors import IndexDamaged, IndexMismatch, InputError, StoreUnavailable, masked, optional_import
from .manifest import Fetched, Manifest, key_of

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["CONTENT_BYTES", "REDIS_SCHEMES", "RedisKeys", "RedisTokenStore", "connect", "reaching"]

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
CONTENT_BYTES = 16
MGET_KEYS = 256  # keys per command; one round trip carries several commands

_log = logging.getLogger(__name__)


class RedisTokenStore:
    """A token index in Redis, written by ``mixlm-rerank index push``. Thread-safe; reconnects automatically.

    Args:
        url: ``redis://HOST:PORT/DB#NAME``, where NAME is the index; also redis-py's ``rediss://`` and ``unix://`` URLs.
        unavailable: what to do if Redis does not answer. ``"error"``: raise StoreUnavailable. ``"missing"``: log it and
            treat all candidates of the query as missing, so that the reranker's ``missing`` policy applies ("last":
            they keep their first-stage order).
        timeout: seconds to wait for a connection, and for an answer.

    Raises:
        InputError: no such index, or an unusable URL.
        StoreUnavailable: Redis does not answer.
        MissingDependency: redis-py is not installed.
    """

    def __init__(self, url: str, *, unavailable: Literal["error", "missing"] = "error", timeout: float = 1.0) -> None:
        if unavailable not in ("error", "missing"):
            raise InputError(f'unavailable must be "error" or "missing", not {unavailable!r}')
        self.unavailable = unavailable
        self.timeout = timeout
        self._redis, name = connect(url, timeout)
        self._address, self.url = url, masked(url)
        keys = RedisKeys(name)
        with reaching(self.url):
            manifest = self._redis.get(keys.manifest)
        if manifest is None:
            raise InputError(f"there is no token index {name!r} in {self} (put one there: mixlm-rerank index push)")
        self.manifest = Manifest.loads(manifest, self.url)
        if not self.manifest.complete:
            raise IndexDamaged(f"{self} is half pushed: finish it (mixlm-rerank index push)")
        self._manifest_key, self._prefix = keys.manifest, keys.documents(self.manifest)
        self._quantiser = self.manifest.quantiser

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[object, ...]:
        return partial(RedisTokenStore, unavailable=self.unavailable, timeout=self.timeout), (self._address,)

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """See :class:`TokenStore`.

        Raises StoreUnavailable if ``unavailable`` is ``"error"``, IndexMismatch if another encoder's index was pushed.
        """
        check_list_of_strings("docids", docids)
        try:
            with reaching(self.url):
                values = self._values(docids)
        except StoreUnavailable as error:
            if self.unavailable == "error":
                raise
            _log.warning("%s; its %d candidates count as missing", error, len(docids))
            values = [None] * len(docids)
        held = [value[CONTENT_BYTES:] for value in values if value is not None]
        size = self._quantiser.record_bytes
        sizes = np.array([len(records) for records in held], dtype=np.int64)
        if ((sizes % size if self.manifest.passages else sizes - size).any()) or not sizes.all():
            raise IndexDamaged(
                f"{self.url} holds a document of another size than {CONTENT_BYTES + size} bytes: push the index anew"
            )
        counts = np.zeros(len(values), dtype=np.int64)
        counts[[value is not None for value in values]] = sizes // size
        records = np.frombuffer(b"".join(held), dtype=np.uint8).reshape(-1, size)
        return Fetched(self._quantiser.unpack(records, tokens), counts, self._quantiser.titles(records))

    def _values(self, docids: Sequence[str]) -> list[bytes | None]:
        keys = [self._prefix + key_of(docid) for docid in docids]
        with self._redis.pipeline(transaction=False) as pipeline:
            for start in range(0, len(keys), MGET_KEYS):
                pipeline.mget(keys[start : start + MGET_KEYS])
            pipeline.get(self._manifest_key)  # last: a push updates the manifest before it deletes documents
            *chunks, manifest = pipeline.execute()
        if manifest is None:
            raise StoreUnavailable(f"{self.url} has lost its index (Redis was emptied, or it expired): push it again")
        now = Manifest.loads(manifest, self.url)
        if not now.complete:
            raise StoreUnavailable(f"{self.url} is being pushed again, after Redis was emptied")
        if not now.same_tokens(self.manifest):
            raise IndexMismatch(
                f"{self.url} holds now an index of item encoder {now.fingerprint} ({now.model}), no longer of "
                f"{self.manifest.fingerprint} ({self.manifest.model}): open it anew, with that model"
            )
        return [value for chunk in chunks for value in chunk]


class RedisKeys:
    """The Redis keys of the index called ``name``."""

    def __init__(self, name: str) -> None:
        self.all = f"mixlm:{name}:"
        self.manifest, self.lock = f"{self.all}manifest", f"{self.all}lock"

    def documents(self, manifest: Manifest) -> bytes:
        """Prefix of the documents' keys; the docid follows it."""
        return f"{self.all}{manifest.kind}:".encode()


def connect(url: str, timeout: float) -> tuple[Redis, str]:
    """A Redis client and the index name from the URL. The client connects at its first command.

    Raises InputError for an invalid URL, MissingDependency without redis-py.
    """
    with optional_import("a token index in Redis needs redis-py", "redis"):
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError
        from redis.retry import Retry
    server, name = urldefrag(url)
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(
            f"{masked(url)!r} does not name an index: redis://HOST:PORT/DB#NAME, of letters, digits, '.', '-', '_'"
        )
    try:
        client = Redis.from_url(
            server,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Retry once if the server has closed the connection, but do not wait for a timeout twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )
    except ValueError:  # its message may contain part of the password
        raise InputError(
            f"{masked(url)!r} is no address of a Redis: redis://USER:PASSWORD@HOST:PORT/DB#NAME (percent-encode "
            "special characters of a password), also rediss:// and unix://"
        ) from None
    return client, name


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn errors of Redis into StoreUnavailable or InputError, with a clear message; ``url`` is :func:`masked`."""
    from redis.exceptions import AuthenticationError, ConnectionError, OutOfMemoryError, RedisError, TimeoutError

    try:
        yield
    except AuthenticationError as error:
        raise InputError(f"{url} refuses us ({error}): give user and password in the URL") from None
    except OutOfMemoryError:
        raise InputError(f"{url} is full: raise its maxmemory, and run the same command again to go on") from None
    except (ConnectionError, TimeoutError) as error:
        raise StoreUnavailable(f"{url} does not answer ({error}): is Redis running there?") from None
    except RedisError as error:
        raise StoreUnavailable(f"{url} cannot serve now: {error}") from None
