"""The public class of the token index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike

from ..errors import InputError
from ..types import Document, Model
from .builder import build, new_manifest
from .exchange import export_index, import_index, import_vectors, write_vectors
from .manifest import TokenStore
from .opened import IndexInfo
from .plan import Job
from .push import push
from .ray_build import build_on_ray
from .redis_store import REDIS_SCHEMES, RedisTokenStore
from .updates import Changes, UpdatableIndex

__all__ = ["IndexInfo", "TokenIndex", "open_store"]


class TokenIndex(UpdatableIndex):
    """docid -> embedding tokens of one corpus, in a folder on this machine.

    ``TokenIndex(path)`` opens an existing index. Any number of processes may read it while one writes; each ``fetch``
    reads the state that was committed last.

    Raises:
        InputError: there is no index.
        IndexDamaged: the index is half built, damaged, or of another format version.
    """

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
            precision: number format of the stored tokens: ``"int8"`` (with scales), ``"float16"`` or ``"float32"``.
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
        manifest = new_manifest(model, precision, corpus, passages=passages)
        job = Job(documents, model, Path(path), manifest, skip_empty, progress)
        if engine == "ray":
            build_on_ray(job, shards, workers)
        elif shards or workers:
            raise InputError('shards and workers are of the engine "ray"')
        elif engine == "local":
            build(job)
        else:
            raise InputError(f'engine must be "local" or "ray", not {engine!r}')
        return cls(path)

    def export(self, url: str, *, progress: bool = True) -> None:
        """Write the index as Parquet shards to a folder or an fsspec URL.

        Raises InputError if there is a finished export, MissingDependency without pyarrow.
        """
        export_index(self.path, url, progress=progress)

    @classmethod
    def import_from(
        cls, url: str, path: str | Path, *, model: Model | None = None, precision: str = "int8", progress: bool = True
    ) -> TokenIndex:
        """Make an index from Parquet shards. After an interruption, the same call resumes.

        Args:
            url: the shards of an export. With a ``model``: vectors of your own, a Parquet file or a folder of them,
                with the columns ``docid`` (strings) and ``vectors`` (k lists of d numbers each, or lists of k * d).
            path: folder of the index: a new one, or that of an interrupted import.
            model: a model that takes vectors, ``MixLM.from_backbones(None, ranker, vectors=d, tokens=k)``.
            precision: number format of the stored vectors, as in ``build``; an export keeps its own.
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
        """Make an index from your own vectors. After an interruption, the same call resumes.

        Args:
            docids: one for each document, unique.
            vectors: numbers [n, k, d], or [n, k * d]; a memory-mapped array is read in parts.
            model: a model that takes vectors, as in ``import_from``.
            path: folder of the index.
            precision: number format of the stored vectors.
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
            ttl: seconds after which Redis deletes the index unless it is pushed again.
            progress: show a progress bar on stderr.

        Raises InputError for an unusable URL or if Redis has too little memory, StoreUnavailable if it does not answer.
        """
        return push(self.path, url, ttl=ttl, progress=progress)


def open_store(where: TokenStore | str | Path) -> TokenStore:
    """Open a token index by its folder or Redis URL. A store that is already open is returned unchanged."""
    if isinstance(where, str | Path):
        return RedisTokenStore(str(where)) if str(where).startswith(REDIS_SCHEMES) else TokenIndex(where)
    if not hasattr(where, "fetch"):
        raise InputError(f"index must be a token index, its folder or its Redis URL, not {where!r:.80}")
    return where
