"""The public class of the token index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import ArrayLike

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
from .vectors import import_vectors, write_vectors
from .verification import Verification, verify

__all__ = ["IndexInfo", "TokenIndex", "open_store"]


@dataclass(frozen=True)
class IndexInfo:
    """Size and identity of an index.

    Attributes:
        path: the folder.
        documents: number of documents.
        records: number of live records; an index of passages has more records than documents.
        dead: records of documents that were deleted or replaced since the last compaction.
        bytes: disk space of all files together.
        cut: documents that lost their end because they are longer than the item encoder reads. ``None``: unknown (an
            earlier version built the index).
        unread: tokens of these documents that were not read.
        manifest: what identifies the index: item encoder, shape, precision, corpus.
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
        """Share of tokens read, over the documents that were cut."""
        read = (self.cut or 0) * self.manifest.text_tokens
        return read / (read + self.unread) if self.unread else 1.0


class TokenIndex:
    """docid -> embedding tokens of one corpus, in a folder on this machine.

    ``TokenIndex(path)`` opens an existing index. Any number of processes may read it while one writes; each ``fetch``
    reads the state that was committed last.

    Raises:
        InputError: there is no index.
        IndexDamaged: the index is half built, damaged, or of another format version.
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
        """Encode documents and write an index. Memory does not grow with the corpus.

        After an interruption (Ctrl-C, crash, full disk) the same call resumes from what was committed and ends with the
        same bytes. If documents can be iterated twice (a list, a corpus), they are checked, and size and time are
        estimated, before the work starts; a generator is read once.

        Args:
            documents: documents with unique docids.
            model: the model whose item encoder makes the tokens.
            path: folder of the index: a new one, or that of an interrupted build.
            precision: of the stored tokens: ``"int8"`` (with scales), ``"float16"`` or ``"float32"``.
            corpus: where the documents come from; later messages show it.
            skip_empty: leave out documents without text instead of refusing them.
            passages: split documents that are longer than the item encoder reads, and keep embedding tokens of each
                passage. A reranker scores a document by its best passage (MaxP). By default such documents are cut.
            progress: show an estimate and a progress bar on stderr.
            engine: ``"local"``: in this process. ``"ray"``: on the workers of a Ray cluster (``RAY_ADDRESS``, or one
                started here), with the same bytes.
            shards: with Ray, a folder or fsspec URL that all workers can reach, for their results, which are kept.
                ``None``: a folder beside ``path``, deleted at the end.
            workers: with Ray, the number of workers; by default one for each GPU or, without GPUs, each core.

        Raises:
            InputError: duplicate docid, empty text, changed corpus on resume, disk full, folder in use.
            IndexMismatch: the folder holds an interrupted build of another model.
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
        """Embedding tokens of many documents; the last ``tokens`` of each, or all for ``None``."""
        return self._store.fetch(docids, tokens)

    def add(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Encode and write new documents. Documents that are in the index with the same text are skipped.

        Like all updates it commits in windows: after an interruption the same call resumes.

        Raises:
            InputError: a docid is in the index with another text; duplicate docid, empty text, disk full, folder in
                use.
            IndexMismatch: another item encoder built the index.
        """
        return updates.add(self.path, documents, model, skip_empty=skip_empty, progress=progress)

    def replace(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Add or overwrite documents. Documents whose text has not changed are skipped.

        Raises the errors of ``add``, except for texts that differ.
        """
        return updates.replace(self.path, documents, model, skip_empty=skip_empty, progress=progress)

    def delete(self, docids: Sequence[str]) -> Changes:
        """Delete documents in one step. ``compact`` frees their space.

        Raises InputError, and deletes nothing, if a docid is not in the index.
        """
        return updates.delete(self.path, docids)

    def sync(
        self, documents: Iterable[Document], model: Model, *, skip_empty: bool = False, progress: bool = True
    ) -> Changes:
        """Bring the index up to date with a corpus: encode what is new or changed, delete what is gone.

        ``compare`` shows first what would change. Raises the errors of ``replace``; InputError for an empty corpus.
        """
        return updates.sync(self.path, documents, model, skip_empty=skip_empty, progress=progress)

    def compare(self, documents: Iterable[Document], *, skip_empty: bool = False) -> Changes:
        """Show what ``sync`` would do. Encodes and writes nothing."""
        return updates.compare(self.path, documents, skip_empty=skip_empty)

    def compact(self, *, progress: bool = True) -> int:
        """Free the space of deleted and replaced documents without interrupting readers. Returns the bytes saved.

        Needs room for a second copy. Raises InputError if there is none, or if another process writes.
        """
        return compact(self.path, progress=progress)

    @staticmethod
    def verify(path: str | Path, *, drop: bool = False, progress: bool = True) -> Verification:
        """Check every document against its checksum, even in an index that is too damaged to be opened.

        Args:
            path: folder of the index.
            drop: remove the damaged documents; ``sync`` encodes them again.
            progress: show a progress bar on stderr.

        Raises InputError if there is no index, IndexDamaged if its docid map or manifest cannot be read.
        """
        return verify(Path(path), drop=drop, progress=progress)

    def copy(self, path: str | Path, *, progress: bool = True) -> TokenIndex:
        """Make a compact copy in a new folder. Raises InputError if the folder exists, or there is no room."""
        copy(self.path, Path(path), progress=progress)
        return TokenIndex(path)

    def export(self, url: str, *, progress: bool = True) -> None:
        """Write the index as Parquet shards to a folder or an fsspec URL.

        Raises InputError if there is a finished export, MissingDependency without pyarrow.
        """
        export_index(self.path, url, progress=progress)

    @classmethod
    def import_from(
        cls,
        url: str,
        path: str | Path,
        *,
        model: Model | None = None,
        precision: str = "int8",
        progress: bool = True,
    ) -> TokenIndex:
        """Make an index from Parquet shards. After an interruption, the same call resumes.

        Args:
            url: the shards of an export. With a ``model``: vectors of your own, a Parquet file or a folder of them,
                with the columns ``docid`` (strings) and ``vectors`` (k lists of d numbers each, or lists of k * d).
            path: folder of the index: a new one, or that of an interrupted import.
            model: one that takes vectors, ``MixLM.from_backbones(None, ranker, vectors=d, tokens=k)``.
            precision: of the stored vectors, as in ``build``; an export keeps its own.
            progress: show a progress bar on stderr.

        Raises InputError if there is no finished export, or for vectors that ``from_vectors`` refuses; IndexDamaged if
        the shards have changed.
        """
        if model is None:
            import_index(url, Path(path), progress=progress)
        else:
            import_vectors(url, model, Path(path), precision=precision, progress=progress)
        return cls(path)

    @classmethod
    def from_vectors(
        cls,
        docids: Sequence[str],
        vectors: ArrayLike,
        model: Model,
        path: str | Path,
        *,
        precision: str = "int8",
        progress: bool = True,
    ) -> TokenIndex:
        """Make an index of vectors of your own. After an interruption, the same call resumes.

        Args:
            docids: unique.
            vectors: numbers [n, k, d], or [n, k * d]; a memory-mapped array is read in parts.
            model: one that takes vectors, as in ``import_from``.
            path: folder of the index.
            precision: of the stored vectors.
            progress: show a progress bar on stderr.

        Raises:
            InputError: a model that reads texts; another shape; a number that is not finite; a duplicate docid; disk
                full, folder in use.
        """
        write_vectors(docids, vectors, model, Path(path), precision=precision, progress=progress)
        return cls(path)

    def push(self, url: str, *, ttl: int | None = None, progress: bool = True) -> Changes:
        """Copy the index to Redis, or update the copy. After an interruption, the same call resumes.

        Args:
            url: ``redis://HOST:PORT/DB#NAME``. ``RedisTokenStore`` reads it.
            ttl: seconds after which Redis deletes what is not pushed again.
            progress: show a progress bar on stderr.

        Raises InputError for an unusable URL or if Redis has too little memory, StoreUnavailable if it does not answer.
        """
        return push(self.path, url, ttl=ttl, progress=progress)

    def digest(self) -> str:
        """Hash of all documents, in 16 hexadecimal digits; the same in whatever order they were written."""
        found = hashlib.blake2b(digest_size=8)
        for _, entries in self._store.scan(1 << 16):
            found.update(entries["crc"].tobytes())
        return found.hexdigest()

    def info(self) -> IndexInfo:
        """Size and identity of the index. Reads the whole docid map."""
        store = self._store
        documents = records = cut = unread = 0
        for _, entries in store.scan(1 << 16):
            lost = entries["more"] * (not self.manifest.passages)
            documents, records = documents + len(entries), records + int(store.counts(entries).sum())
            cut, unread = cut + int((lost > 0).sum()), unread + int(lost.sum())
        known, dead = cut if self.manifest.text_tokens else None, store.rows - records
        return IndexInfo(str(self.path), documents, records, dead, store.disk, known, unread, self.manifest)


def open_store(where: TokenStore | str | Path) -> TokenStore:
    """Open a token index by its folder or Redis URL. A store that is already open is returned unchanged."""
    if isinstance(where, str | Path):
        return RedisTokenStore(str(where)) if str(where).startswith(REDIS_SCHEMES) else TokenIndex(where)
    if not hasattr(where, "fetch"):
        raise InputError(f"index must be a token index, its folder or its Redis URL, not {where!r:.80}")
    return where
