"""Vectors of the user's own into a token index: from an array, or from Parquet files with a column for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import check_list_of_strings
from ..errors import InputError
from ..types import Document, Model
from .builder import new_manifest
from .entries import Packed
from .exchange import WINDOW, fill
from .quantiser import Quantiser
from .shards import Shards

__all__ = ["import_vectors", "write_vectors"]

BYTES = 1 << 26  # of vectors that are in memory together
Batch = tuple[str, Sequence[str], NDArray[Any]]  # where it is from, docids, vectors [n, k, d]


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
    window = _window(shape)
    starts = range(0, len(docids), window)
    batches = (("the array", docids[at : at + window], array[at : at + window].reshape(-1, *shape)) for at in starts)
    _fill(batches, len(docids), model, folder, precision, "ARRAY", progress=progress)


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

    _fill(batches(), sum(files.values()), model, folder, precision, url, progress=progress)


def _shape(model: Model) -> tuple[int, int]:
    """Of a document: vectors, and their width. Raises InputError for a model that encodes texts."""
    if not model.config.vectors:
        raise InputError(
            f"{model.name} reads texts: for vectors make a model by mixlm-rerank model init --vectors WIDTH"
        )
    return model.config.tokens, model.config.vectors


def _window(shape: tuple[int, int]) -> int:
    """Documents that are read at once."""
    return max(1, min(WINDOW, BYTES // (4 * shape[0] * shape[1])))


def _fill(
    batches: Iterable[Batch],
    documents: int,
    model: Model,
    folder: Path,
    precision: str,
    source: str,
    *,
    progress: bool,
) -> None:
    if not documents:
        raise InputError(f"{source} holds no documents")
    manifest = new_manifest(model, precision, source)
    parts = ((where, _packed(docids, vectors, manifest.quantiser)) for where, docids, vectors in batches)
    fill(folder, manifest, documents, parts, source, progress=progress)


def _packed(docids: Sequence[str], vectors: NDArray[Any], quantiser: Quantiser) -> Packed:
    """The hash of a document's vectors stands for its text. Raises InputError for what is not finite."""
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
    """A column of lists of k lists of d numbers, or of k * d numbers -> [n, k, d]. Raises InputError for other ones."""
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
    """The first document whose lists have other lengths."""
    wanted = " lists of ".join(map(str, lengths))
    for docid, row in zip(docids, rows, strict=True):
        inner = {len(one or ()) for one in row or ()} if len(lengths) > 1 else set()
        if len(row or ()) != lengths[0] or inner - {lengths[-1]}:
            of = f" lists of {', '.join(map(str, sorted(inner)))}" if inner else ""
            return f"the vectors of {docid!r} are {len(row or ())}{of} numbers: expected {wanted} numbers"
    return f"the column vectors must hold {wanted} numbers for each docid"
