"""Export an index as Parquet shards; make an index from such shards, or from vectors of the user's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import check_list_of_strings
from ..errors import IndexDamaged, InputError
from ..progress import progress_bar
from ..types import Document, Model
from .builder import first_known, new_manifest
from .local import LocalStore
from .lock import held_still, open_complete, refuse_strangers, writer_lock
from .manifest import MAX_KEY_BYTES, Manifest, Packed, docid_of
from .plan import DOCID_MAP_BYTES, check_room
from .quantiser import Quantiser
from .shards import CATALOGUE, Shards

__all__ = ["export_index", "fill", "import_begun", "import_index", "import_vectors", "write_vectors"]

SHARD_BYTES = 1 << 28
OWN = re.compile(r"part-\d{6}\.parquet(\.\w+\.part)?|index\.json(\.\w+\.part)?")
WINDOW = 16384  # records per commit of an import, approximately
BYTES = 1 << 26  # of the user's vectors in memory at a time
Batch = tuple[str, Sequence[str], NDArray[Any]]  # source (for messages), docids, vectors [n, k, d]


def export_index(folder: Path, url: str, *, progress: bool) -> None:
    """See :meth:`TokenIndex.export`."""
    shards = Shards(url)
    if shards.holds(CATALOGUE):
        raise InputError(f"{url} holds an exported index already: choose another place")
    shards.prepare(OWN)
    with held_still(folder):
        store = open_complete(folder)
        names: list[str] = []
        with progress_bar(len(store), "export", "documents", enabled=progress) as bar:
            for keys, entries in store.scan(store.window(SHARD_BYTES // store.quantiser.record_bytes)):
                names.append(f"part-{len(names):06d}.parquet")
                shards.write(names[-1], store.packed(keys, entries), store.manifest)
                bar.update(len(keys))
        shards.clear(OWN, kept=names)  # remains of a killed export
        shards.finish(store.manifest, names, len(store))


def import_index(url: str, folder: Path, *, progress: bool) -> None:
    """See :meth:`TokenIndex.import_from`."""
    shards = Shards(url)
    manifest, names, documents = shards.catalogue()
    window = max(1, WINDOW // 16) if manifest.passages else WINDOW
    parts = ((f"{url}/{name}", part) for name in names for part in shards.read(name, manifest, window))
    fill(folder, replace(manifest, complete=False), documents, parts, url, progress=progress)


def write_vectors(
    docids: Sequence[str], vectors: ArrayLike, model: Model, folder: Path, *, precision: str, progress: bool
) -> None:
    """See :meth:`TokenIndex.from_vectors`."""
    check_list_of_strings("docids", docids)
    shape = _shape(model)
    try:
        array = np.asarray(vectors)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"vectors must be an array: {error}") from None
    if array.dtype.kind not in "fiu" or array.shape not in ((len(docids), *shape), (len(docids), shape[0] * shape[1])):
        wanted = f"numbers [{len(docids)}, {shape[0]}, {shape[1]}]: documents, vectors a document, width"
        raise InputError(f"vectors must be {wanted}, not {array.dtype} {list(array.shape)}")
    parts = (slice(at, at + _window(shape)) for at in range(0, len(docids), _window(shape)))
    batches = (("the array", docids[part], array[part].reshape(-1, *shape)) for part in parts)
    _fill_with_vectors(batches, len(docids), model, folder, precision, "ARRAY", progress=progress)


def import_vectors(url: str, model: Model, folder: Path, *, precision: str, progress: bool) -> None:
    """See :meth:`TokenIndex.import_from`."""
    shape, shards = _shape(model), Shards(url)
    files = shards.tables()

    def batches() -> Iterator[Batch]:
        for path in files:
            for docids, lists in shards.columns(path, ("docid", "vectors"), _window(shape)):
                named = docids.to_pylist()
                if not all(isinstance(docid, str) for docid in named):
                    raise InputError(f"{path}: the column docid must hold strings, and one in each row")
                yield path, named, _array(lists, named, shape)

    _fill_with_vectors(batches(), sum(files.values()), model, folder, precision, url, progress=progress)


def fill(
    folder: Path, manifest: Manifest, documents: int, parts: Iterable[tuple[str, Packed]], url: str, *, progress: bool
) -> None:
    """Make an index of the documents in ``parts``, or resume an interrupted import. ``documents``: their number.

    A part is a source, for messages, and some documents. ``url``: the source of all parts.
    """
    import_begun(folder, manifest, documents)  # refuse before anything is written
    with writer_lock(folder):
        store = import_begun(folder, manifest, documents) or LocalStore.create(folder, manifest)
        done, row = store.rows, 0
        with progress_bar(documents, "import", "documents", enabled=progress, initial=len(store)) as bar:
            for where, read in parts:
                committed = int(np.searchsorted(row + read.entries["row"], done))
                held, expected = store.entries(list(map(docid_of, read.keys[:committed]))), read.entries[:committed]
                if (held["row"] != row + expected["row"]).any() or (held["content"] != expected["content"]).any():
                    raise InputError(
                        f"{url} has changed since its import into {store.folder} was interrupted: delete the folder"
                    )
                row += len(read.records)
                if committed < len(read):
                    _refuse_known(store, read.keys[committed:], where)
                    store.append(read.since(committed))
                    bar.update(len(read) - committed)
        if len(store) != documents:
            raise IndexDamaged(f"{url} holds {len(store)} documents, its {CATALOGUE} says {documents}: export it again")
        store.finish()


def import_begun(folder: Path, exported: Manifest, documents: int) -> LocalStore | None:
    """The store of an interrupted import; ``None`` if the import starts anew."""
    if not (folder / "data.mdb").exists():
        refuse_strangers(folder)
        check_room(documents * (exported.quantiser.record_bytes + DOCID_MAP_BYTES), folder)
        return None
    store = LocalStore(folder)
    if store.manifest != exported:
        raise InputError(f"{folder} is a token index already, and not of this import: choose another folder")
    return store


def _refuse_known(store: LocalStore, keys: Sequence[bytes], where: str) -> None:
    size = next((len(key) for key in keys if not 0 < len(key) <= MAX_KEY_BYTES), None)
    if size is not None:
        raise InputError(f"{where} holds a docid of {size} bytes (1 to {MAX_KEY_BYTES} are possible)")
    twice = first_known([docid_of(key) for key in keys], store)
    if twice is not None:
        raise InputError(f"{where} holds {twice!r}, which came before: a docid may stand in one place only")


def _shape(model: Model) -> tuple[int, int]:
    """Vectors per document, and their width. Raises InputError for a model that encodes texts."""
    if not model.config.vectors:
        raise InputError(
            f"{model.name} reads texts: for vectors make a model by mixlm-rerank model init --vectors WIDTH"
        )
    return model.config.tokens, model.config.vectors


def _window(shape: tuple[int, int]) -> int:
    """How many documents are read at a time."""
    return max(1, min(WINDOW, BYTES // (4 * shape[0] * shape[1])))


def _fill_with_vectors(
    batches: Iterable[Batch], documents: int, model: Model, folder: Path, precision: str, source: str, *, progress: bool
) -> None:
    if not documents:
        raise InputError(f"{source} holds no documents")
    manifest = new_manifest(model, precision, source)
    parts = ((where, _packed(docids, vectors, manifest.quantiser)) for where, docids, vectors in batches)
    fill(folder, manifest, documents, parts, source, progress=progress)


def _packed(docids: Sequence[str], vectors: NDArray[Any], quantiser: Quantiser) -> Packed:
    """Pack documents; a hash of their vectors stands in for the text. Raises InputError for a number not finite."""
    with np.errstate(over="ignore"):
        exact = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(exact).all(axis=(1, 2))
    if not finite.all():
        raise InputError(
            f"the vectors of {docids[int(finite.argmin())]!r} hold a number that is not finite (NaN, infinity)"
        )
    hashes = [hashlib.blake2b(own.data, digest_size=16).hexdigest() for own in exact]
    return Packed.of([Document(*pair) for pair in zip(docids, hashes, strict=True)], quantiser.pack(exact))


def _array(lists: Any, docids: Sequence[str], shape: tuple[int, int]) -> NDArray[Any]:
    """A column with k lists of d numbers, or k * d numbers, in each row -> [n, k, d]. Raises InputError for others."""
    from pyarrow import compute, types

    levels = [lists]
    while any(kind(levels[-1].type) for kind in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        levels.append(levels[-1].flatten())
    numbers: NDArray[Any] = levels.pop().to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "fiu" or len(levels) not in (1, 2):
        raise InputError(f"the column vectors must hold lists of numbers, or of lists of numbers, not {lists.type}")
    lengths = shape if len(levels) == 2 else (shape[0] * shape[1],)
    for level, length in zip(levels, lengths, strict=True):
        if (compute.list_value_length(level).to_numpy(zero_copy_only=False) != length).any():
            raise InputError(_told(lists.to_pylist(), docids, lengths))
    return numbers.reshape(-1, *shape)


def _told(rows: Sequence[Any], docids: Sequence[str], lengths: Sequence[int]) -> str:
    """The error message, which names the first document whose lists have other lengths."""
    wanted = " lists of ".join(map(str, lengths))
    for docid, row in zip(docids, rows, strict=True):
        inner = {len(one or ()) for one in row or ()} if len(lengths) > 1 else set()
        if len(row or ()) != lengths[0] or inner - {lengths[-1]}:
            of = f" lists of {', '.join(map(str, sorted(inner)))}" if inner else ""
            return f"the vectors of {docid!r} are {len(row or ())}{of} numbers: expected {wanted} numbers"
    return f"the column vectors must hold {wanted} numbers for each docid"
