"""The token index as its users see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import IndexDamaged, InputError
from ..types import Document, Model
from . import updates
from .builder import build
from .compaction import compact, copy
from .exchange import export_index, import_index
from .local import LocalStore
from .manifest import Manifest
from .protocol import Fetched, TokenStore
from .push import push
from .ray_build import build_on_ray
from .redis_store import REDIS_SCHEMES, RedisTokenStore
from .updates import Changes
from .verification import Verification, verify

__all__ = ["IndexInfo", "TokenIndex", "open_store"]


@dataclass(frozen=True)
class IndexInfo:
    """Size and identity of an index.

    Attributes:
        records: of the documents; more of them than documents in an index of passages.
        dead: records of documents that were deleted or replaced since the last compaction.
        bytes: disk space, all files together.
        cut: documents that are longer than the item encoder reads, and lost their end. ``None``: unknown, in an index
            that an earlier version built.
        unread: tokens of theirs that were not read.
    """

    path: str
    documents: int
    records: int
    dead: int
    bytes: int
    cut: int | None
    unread: int
    manifest: Manifest

    @property
    def bytes_per_document(self) -> float:
        return self.bytes / max(self.documents, 1)

    @property
    def share_read(self) -> float:
        """Of the tokens of the documents that were cut."""
        read = (self.cut or 0) * self.manifest.text_tokens
        return read / (read + self.unread) if self.unread else 1.0


class TokenIndex:
    """docid -> embedding tokens of one corpus, in a folder on this machine.

    Open an existing one with ``TokenIndex(path)``. Any number of processes may read it while one writes; each
    :meth:`fetch` reads the state that was committed last, whole.

    Raises:
        InputError: there is no index.
        IndexDamaged: it is half built, torn, or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self._store = LocalStore(Path(path))
        self.path = self._store.folder
        if not self._store.manifest.complete:
            raise IndexDamaged(
                f"{self.path} is half built ({len(self._store)} documents). Finish it with the command that began it: "
                f"mixlm-rerank index import, or index build {self.manifest.corpus} {self.path} --model "
                f"{self.manifest.model} {self.manifest.build_options}"
            )

    @classmethod
    def build(
        cls,
        documents: Iterable[Document],
        model: Model,
        path: str | Path,
        *,
        precision: str = "int8",
        corpus: str = "CORPUS",
        skip_empty: bool = False,
        passages: bool = False,
        progress: bool = True,
        engine: Literal["local", "ray"] = "local",
        shards: str | None = None,
        workers: int | None = None,
    ) -> TokenIndex:
        """Encode documents and write an index. Memory is bounded whatever the size of the corpus.

        Interrupted (Ctrl-C, crash, full disk), it keeps what was committed; the same call resumes and ends with the
        same bytes. Documents that can be iterated twice (a list, a corpus) are checked, and size and time estimated,
        before the long work starts; a generator is taken as it comes.

        Args:
            documents: with unique docids.
            model: its item encoder makes the tokens.
            path: folder of the index; new, or of an interrupted build.
            precision: of the stored tokens: ``"int8"`` (with a scale for each vector), ``"float16"`` or ``"float32"``.
            corpus: where the documents come from, for later messages.
            skip_empty: leave out documents without text instead of refusing them.
            passages: split documents that are longer than the item encoder reads, and keep embedding tokens of each
                passage: a reranker scores a document by its best one (MaxP). By default they lose their end.
            progress: estimate and progress bar on stderr.
            engine: ``"local"``: in this process. ``"ray"``: on the workers of a Ray cluster (``RAY_ADDRESS``), or of
                one started here; the same bytes.
            shards: with Ray, a folder or fsspec URL that all workers reach, for what they encode; kept. ``None``:
                beside ``path``, deleted in the end.
            workers: with Ray, how many; by default one for each GPU or, where there is none, each core.

        Raises:
            InputError: duplicate docid, empty text, changed corpus on resume, disk full, folder in use.
            IndexMismatch: an interrupted build of another model.
        """
        common: dict[str, Any] = {
            "precision": precision,
            "corpus": corpus,
            "skip_empty": skip_empty,
            "passages": passages,
            "progress": progress,
        }
        if engine == "ray":
            build_on_ray(documents, model, Path(path), **common, shards_url=shards, workers=workers)
        elif shards or workers:
            raise InputError('shards and workers are of the engine "ray"')
        elif engine == "local":
            build(documents, model, Path(path), **common)
        else:
            raise InputError(f'engine must be "local" or "ray", not {engine!r}')
        return cls(path)

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[type[TokenIndex], tuple[Path]]:
        """Pickled as its path: another process opens it anew."""
        return TokenIndex, (self.path,)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, docid: str) -> bool:
        return bool(self._store.entries([docid])["row"][0] >= 0)

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """Embedding tokens of many documents at once; the last ``tokens`` of each (all of them for ``None``)."""
        return self._store.fetch(docids, tokens)

    def add(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Encode and write documents that are not there yet; those that are, with the same text, are passed over.

        As all updates: committed in windows, so after an interruption the same call goes on where it stopped.

        Raises:
            InputError: one that is there with another text, duplicate docid, empty text, disk full, folder in use.
            IndexMismatch: another item encoder built the index.
        """
        return updates.add(self.path, documents, model, skip_empty=skip_empty, progress=progress)

    def replace(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Write documents whether they are there or not; those whose text has not changed are passed over.

        Raises as :meth:`add`, but for texts that differ.
        """
        return updates.replace(self.path, documents, model, skip_empty=skip_empty, progress=progress)

    def delete(self, docids: Sequence[str]) -> Changes:
        """Forget documents, all at once; :meth:`compact` gives back their space.

        Raises InputError, and deletes nothing, if one is not there.
        """
        return updates.delete(self.path, docids)

    def sync(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Make the index hold this corpus: encode what is new or changed, delete what is gone. Look first: compare.

        Raises as :meth:`replace`; InputError for a corpus without documents.
        """
        return updates.sync(self.path, documents, model, skip_empty=skip_empty, progress=progress)

    def compare(self, documents: Iterable[Document], *, skip_empty: bool = False) -> Changes:
        """What :meth:`sync` would do. Encodes and writes nothing."""
        return updates.compare(self.path, documents, skip_empty=skip_empty)

    def compact(self, *, progress: bool = True) -> int:
        """Give back the space of deleted and replaced documents, under running readers. Returns bytes saved.

        It needs room for a second copy. Raises InputError if there is none, or another process writes.
        """
        return compact(self.path, progress=progress)

    @staticmethod
    def verify(path: str | Path, *, drop: bool = False, progress: bool = True) -> Verification:
        """Read every document and check its checksum, in an index that is too damaged to be opened, too.

        Args:
            drop: forget the damaged documents; a :meth:`sync` encodes them anew.

        Raises InputError if there is no index, IndexDamaged if its docid map or manifest cannot be read.
        """
        return verify(Path(path), drop=drop, progress=progress)

    def copy(self, path: str | Path, *, progress: bool = True) -> TokenIndex:
        """A compact copy in a new folder. Raises InputError if there is one, or no room."""
        copy(self.path, Path(path), progress=progress)
        return TokenIndex(path)

    def export(self, url: str, *, progress: bool = True) -> None:
        """Write the index as Parquet shards (see :mod:`mixlm_rerank.index.shards`) to a folder or an fsspec URL.

        Raises InputError if a finished export is there, MissingDependency without pyarrow.
        """
        export_index(self.path, url, progress=progress)

    @classmethod
    def import_from(cls, url: str, path: str | Path, *, progress: bool = True) -> TokenIndex:
        """An index from Parquet shards. Interrupted, the same call goes on.

        Raises InputError if there is no finished export, IndexDamaged if it is not what was written.
        """
        import_index(url, Path(path), progress=progress)
        return cls(path)

    def push(self, url: str, *, ttl: int | None = None, progress: bool = True) -> Changes:
        """Put the index into Redis, or bring what is there up to date; interrupted, the same call goes on.

        Args:
            url: ``redis://HOST:PORT/DB#NAME``. Read it with :class:`RedisTokenStore`.
            ttl: seconds after which Redis forgets it, unless it is pushed again.

        Raises InputError for an unusable URL or too little memory there, StoreUnavailable if Redis does not answer.
        """
        return push(self.path, url, ttl=ttl, progress=progress)

    def info(self) -> IndexInfo:
        """Reads the whole docid map."""
        store = self._store
        documents = records = cut = unread = 0
        for _, entries in store.scan(1 << 16):
            lost = entries["more"] * (not self.manifest.passages)
            documents, records = documents + len(entries), records + int(store.counts(entries).sum())
            cut, unread = cut + int((lost > 0).sum()), unread + int(lost.sum())
        known, dead = cut if self.manifest.text_tokens else None, store.rows - records
        return IndexInfo(str(self.path), documents, records, dead, store.disk, known, unread, self.manifest)


def open_store(where: TokenStore | str | Path) -> TokenStore:
    """A token index by its folder or its URL in Redis; a store that is open already is returned as it is."""
    if isinstance(where, str | Path):
        return RedisTokenStore(str(where)) if str(where).startswith(REDIS_SCHEMES) else TokenIndex(where)
    if not hasattr(where, "fetch"):
        raise InputError(f"index must be a token index, its folder or its Redis URL, not {where!r:.80}")
    return where
