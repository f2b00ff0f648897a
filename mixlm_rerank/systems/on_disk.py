"""Tensors that are computed once and read often, in a file instead of in memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["OnDisk"]


class OnDisk:
    """``text -> tensor`` of any shape, as float16; gone with the process. Memory holds texts and places alone, and what
    the system's page cache has room for.

    ``folder``: where the file is, which has no name; None: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        weakref.finalize(self, self._file.close)
        self._places: dict[str, tuple[int, torch.Size]] = {}

    def __contains__(self, text: object) -> bool:
        return text in self._places

    def __setitem__(self, text: str, tensor: Tensor) -> None:
        self._places[text] = (self._file.seek(0, os.SEEK_END), tensor.shape)
        self._file.write(tensor.detach().to("cpu", torch.float16).contiguous().numpy().data)

    def __getitem__(self, text: str) -> Tensor:
        """On the CPU."""
        place, shape = self._places[text]
        values = np.empty(shape, dtype=np.float16)
        self._file.seek(place)
        self._file.readinto(values.data)
        return torch.from_numpy(values)
