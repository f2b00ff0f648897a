"""Copy a local token index to Redis, or update the copy there: only differences are sent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, masked
from ..progress import progress_bar
from .local import LocalStore
from .lock import held_still, open_complete
from .manifest import Manifest, docid_of
from .redis_store import CONTENT_BYTES, RedisKeys, connect, reaching
from .updates import Changes

if TYPE_CHECKING:
    from redis import Redis
    from redis.lock import Lock

__all__ = ["push"]

WINDOW = 1024
# Redis' own bytes per document in addition to key and value, measured with docids of 8 characters (Redis 7).
OVERHEAD_BYTES = 120
TIMEOUT = 10.0
LOCK_SECONDS = 30


def push(folder: Path, url: str, *, ttl: int | None, progress: bool) -> Changes:
    """See :meth:`TokenIndex.push`."""
    if ttl is not None and ttl < 1:
        raise InputError(f"ttl must be at least 1 second, not {ttl}")
    redis, name = connect(url, TIMEOUT)
    url = masked(url)
    deadline = None if ttl is None else int(time.time()) + ttl  # same for all: no document expires before the manifest
    with held_still(folder), reaching(url):
        store = open_complete(folder)
        keys = RedisKeys(name)
        with _alone(redis, keys, url) as lock:
            held = redis.get(keys.manifest)
            if held is None or not Manifest.loads(held, url).same_tokens(store.manifest):
                _check_memory(redis, store, url)
            if held is None:
                redis.set(keys.manifest, replace(store.manifest, complete=False).dumps(), exat=deadline)
            new = changed = 0
            with progress_bar(len(store), "push", "documents", enabled=progress) as bar:
                for docids, entries in store.scan(WINDOW):
                    lacking, outdated = _written(redis, store, keys, docids, entries, deadline)
                    new, changed = new + lacking, changed + outdated
                    lock.reacquire()
                    bar.update(len(docids))
            redis.set(keys.manifest, store.manifest.dumps(), exat=deadline)
            deleted = sum(_deleted(redis, store, keys))
        return Changes(new, changed, len(store) - new - changed, deleted)


@contextmanager
def _alone(redis: Redis, keys: RedisKeys, url: str) -> Iterator[Lock]:
    """Keep other pushes to this index out. A push that was killed keeps them out for ``LOCK_SECONDS``."""
    from redis.exceptions import LockError

    lock = redis.lock(keys.lock, timeout=LOCK_SECONDS, blocking=False)
    if not lock.acquire():
        raise InputError(f"another push to {url} is under way, or was killed: try again in {LOCK_SECONDS} seconds")
    try:
        yield lock
    except LockError:
        raise InputError(f"this push to {url} was held up, and another one began: run it again") from None
    finally:
        with suppress(LockError):
            lock.release()


def _written(
    redis: Redis,
    store: LocalStore,
    keys: RedisKeys,
    docids: Sequence[bytes],
    entries: NDArray[np.void],
    deadline: int | None,
) -> tuple[int, int]:
    """Write the documents that Redis lacks or holds with another text. Returns the number of each kind."""
    prefix = keys.documents(store.manifest)
    names = [prefix + docid for docid in docids]
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.getrange(name, 0, CONTENT_BYTES - 1)
            pipeline.strlen(name)
        answers = pipeline.execute()
    held = list(zip(answers[::2], answers[1::2], strict=True))
    sizes = (CONTENT_BYTES + store.counts(entries) * store.quantiser.record_bytes).tolist()
    contents = [content.tobytes() for content in entries["content"]]
    places = [place for place, known in enumerate(zip(contents, sizes, strict=True)) if held[place] != known]
    documents = store.packed([docids[place] for place in places], entries[places])
    with redis.pipeline(transaction=False) as pipeline:
        for place, records in zip(places, documents.of_each(), strict=True):
            pipeline.set(names[place], contents[place] + records.tobytes())
        for name in names:
            if deadline is None:
                pipeline.persist(name)
            else:
                pipeline.expireat(name, deadline)
        pipeline.execute()
    lacking = sum(not held[place][0] for place in places)
    return lacking, len(places) - lacking


def _deleted(redis: Redis, store: LocalStore, keys: RedisKeys) -> Iterator[int]:
    """Delete the keys under this name that are not of this index, a window at a time. Yields how many."""
    stream, prefix = redis.scan_iter(f"{keys.all}*", count=WINDOW), keys.documents(store.manifest)
    while found := list(islice(stream, WINDOW)):
        ours = [key for key in found if key.startswith(prefix)]
        rows = store.entries([docid_of(key.removeprefix(prefix)) for key in ours])["row"]
        gone = [key for key, row in zip(ours, rows, strict=True) if row < 0]
        gone += {*found} - {*ours, keys.manifest.encode(), keys.lock.encode()}
        if gone:
            yield int(redis.unlink(*gone))


def _check_memory(redis: Redis, store: LocalStore, url: str) -> None:
    """Raises InputError if Redis has a memory limit that is too small for the index."""
    info = redis.info("memory")
    needed = len(store) * (CONTENT_BYTES + OVERHEAD_BYTES) + store.rows * store.quantiser.record_bytes
    free = int(info["maxmemory"]) - int(info["used_memory"])
    if info["maxmemory"] and free < needed:
        raise InputError(
            f"the index needs about {needed / 1e6:,.0f} MB; {url} has {free / 1e6:,.0f} MB left (maxmemory)"
        )
