"""Append-only segment files of fixed-size records, memory-mapped for reading."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import IndexDamaged, InputError

__all__ = ["FILE", "Segments"]

SEGMENT_BYTES = 1 << 30
FILE = re.compile(r"tokens-(\d+-)?\d{6,}\.bin")


class Segments:
    """Records by row number. Rows are written once; rows past the committed count are remains of a crash.

    A compaction writes the segments of the next ``generation`` beside those of the current one. ``moved`` says whether
    the folder was replaced after it was opened; its files then belong to another index.
    """

    def __init__(
        self, folder: Path, record_bytes: int, rows_per_segment: int, generation: int, moved: Callable[[], bool]
    ) -> None:
        self.folder = folder
        self.generation = generation
        self._moved = moved
        self._record_bytes = record_bytes
        self._rows_per_segment = rows_per_segment
        self._maps: dict[int, NDArray[np.uint8]] = {}

    @staticmethod
    def rows_per_segment(record_bytes: int) -> int:
        return max(1, SEGMENT_BYTES // record_bytes)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copies of records. int64 [n] -> uint8 [n, record_bytes]. Raises IndexDamaged if a file is too short."""
        segments, inside = np.divmod(rows, self._rows_per_segment)
        if len(rows) and (segments == segments[0]).all():  # no second copy
            return self._map(int(segments[0]), int(inside.max()) + 1).take(inside, axis=0)
        out = np.empty((len(rows), self._record_bytes), dtype=np.uint8)
        for segment in np.unique(segments).tolist():
            chosen = np.flatnonzero(segments == segment)
            out[chosen] = self._map(segment, int(inside[chosen].max()) + 1).take(inside[chosen], axis=0)
        return out

    def held(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these rows lie within the files. int64 [n] -> bool [n]."""
        segments, inside = np.divmod(rows, self._rows_per_segment)
        sizes = {segment: self._records(segment) for segment in np.unique(segments).tolist()}
        return (rows >= 0) & (inside < [sizes[segment] for segment in segments.tolist()])

    def append(self, first_row: int, records: NDArray[np.uint8]) -> None:
        """Write records from ``first_row`` on, overwriting what a crash left there, and sync them to disk."""
        written = 0
        while written < len(records):
            segment, inside = divmod(first_row + written, self._rows_per_segment)
            count = min(len(records) - written, self._rows_per_segment - inside)
            path = self._path(segment)
            if not path.exists():
                path.touch()
                _sync_folder(self.folder)
            with path.open("r+b") as file:
                file.seek(inside * self._record_bytes)
                file.write(records[written : written + count].data)
                file.truncate()
                file.flush()
                os.fdatasync(file.fileno())
            written += count

    def open(self, rows: int) -> None:
        """Map the files of the first ``rows`` records now: they stay mapped even if the folder is built anew.

        Raises IndexDamaged if there are fewer records.
        """
        for segment, count in self._each(rows):
            self._map(segment, count)

    def pad(self, rows: int) -> None:
        """Extend files that were truncated or lost, so that they have room for the first ``rows`` records again."""
        for segment, count in self._each(rows):
            with self._path(segment).open("ab") as file:
                if file.tell() < count * self._record_bytes:
                    file.truncate(count * self._record_bytes)

    def sweep(self) -> None:
        """Delete the segments of other generations, left by a compaction. Readers keep those that they have mapped."""
        for path in self.folder.glob("tokens-*.bin"):
            match = FILE.fullmatch(path.name)
            if match and match[1] != (f"{self.generation}-" if self.generation else None):
                path.unlink()

    def _each(self, rows: int) -> Iterator[tuple[int, int]]:
        """Segments of the first ``rows`` records, and how many of these each holds."""
        for segment, start in enumerate(range(0, rows, self._rows_per_segment)):
            yield segment, min(rows - start, self._rows_per_segment)

    def _map(self, segment: int, rows: int) -> NDArray[np.uint8]:
        """The mapped segment, mapped anew if it has grown past the last mapping."""
        mapped = self._maps.get(segment)
        if mapped is None or len(mapped) < rows:
            held = self._records(segment)
            try:
                if held < rows:
                    raise FileNotFoundError
                mapped = np.asarray(np.memmap(self._path(segment), np.uint8, "r", shape=(held, self._record_bytes)))
            except FileNotFoundError:  # perhaps deleted just now, by a compaction
                raise IndexDamaged(
                    f"{self._path(segment)} holds {held} documents, {rows} were committed: restore it, or forget those "
                    f"that are lost (mixlm-rerank index verify {self.folder} --drop) and encode them anew "
                    f"(mixlm-rerank index sync {self.folder} CORPUS)"
                ) from None
            except OSError as error:
                raise InputError(
                    f"cannot read {self._path(segment)} ({error.strerror}): may this user read it? Is address space "
                    "limited (ulimit -v)?"
                ) from None
            if self._moved():
                raise IndexDamaged(f"{self.folder} was deleted or replaced after it was opened: open it anew")
            self._maps[segment] = mapped
        return mapped

    def _records(self, segment: int) -> int:
        try:
            return self._path(segment).stat().st_size // self._record_bytes
        except FileNotFoundError:
            return 0

    def _path(self, segment: int) -> Path:
        generation = f"{self.generation}-" if self.generation else ""
        return self.folder / f"tokens-{generation}{segment:06d}.bin"


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
