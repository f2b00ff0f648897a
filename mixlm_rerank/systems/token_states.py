"""A bi-encoder's own token states: late interaction over them, and its cosine.

Final hidden states of a bi-encoder know more than their mean: MaxSim over them (ColBERT's score, 2004.12832) ranks
better than the cosine that the model was trained for. They lie on disk, where others keep their tensors too.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.model.running import inference, positions_per_forward

__all__ = ["OnDisk", "TokenStates", "max_sim", "states_of_texts"]

POSITIONS_PER_FORWARD = 4096


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


class TokenStates:
    """Every document is read once; its states are kept on disk, in float16: 100 KB for 130 tokens of 384 numbers.

    Args:
        encoder: of an embedding model; it is not trained.
        folder: of the states, see :class:`OnDisk`.
    """

    def __init__(self, encoder: ItemEncoder, folder: Path | None = None) -> None:
        self._encoder = encoder
        self._read = OnDisk(folder)

    def max_sim(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Late interaction of each query with documents of its own, float32 [n] a query; see :func:`max_sim`."""
        return self._each(max_sim, queries, texts)

    def cosine(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """The same, by the bi-encoder's embeddings."""
        return self._each(self._cosine, queries, texts)

    def _cosine(self, query: Tensor, documents: Sequence[Tensor]) -> Tensor:
        embeddings = [self._encoder.embedding_of(states.float()) for states in (query, *documents)]
        own, *others = F.normalize(torch.stack(embeddings), dim=-1).split([1, len(documents)])
        near: Tensor = (others[0] @ own.T)[:, 0]
        return near

    @torch.inference_mode()
    def _each(
        self, near: Callable[[Tensor, Sequence[Tensor]], Tensor], queries: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[NDArray[np.float32]]:
        new = list(dict.fromkeys(text for own in texts for text in own if text not in self._read))
        for row, states in states_of_texts(self._encoder, self._encoder.document_ids(new)):
            self._read[new[row]] = states
        asked = dict(states_of_texts(self._encoder, self._encoder.query_ids(queries)))
        found = [
            near(asked[row].float(), [self._read[text].to(asked[row].device) for text in own])
            for row, own in enumerate(texts)
        ]
        return [own.numpy() for own in torch.cat(found).cpu().split([len(own) for own in texts])]


def states_of_texts(encoder: ItemEncoder, ids: Sequence[list[int]]) -> Iterator[tuple[int, Tensor]]:
    """Row and final states, [length, d], of every text of token ids; those of like length are read together."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    positions = positions_per_forward(encoder.backbone.device, POSITIONS_PER_FORWARD)
    while order:
        size = max(1, positions // len(ids[order[0]]))
        rows, order = order[:size], order[size:]
        with inference(encoder):
            found = encoder.token_states([ids[row] for row in rows])
        yield from zip(rows, found, strict=True)


def max_sim(query: Tensor, documents: Sequence[Tensor]) -> Tensor:
    """Mean over a query's positions of the best cosine among a document's. [length, d] each -> float32 [n].

    The query's first and last position, which are special tokens, do not count where there are others.
    """
    padded = F.normalize(pad_sequence(list(documents), batch_first=True).float(), dim=-1)
    lengths = torch.tensor([len(document) for document in documents], device=query.device)
    beyond = torch.arange(padded.shape[1], device=query.device) >= lengths[:, None]
    own = F.normalize(query[1:-1] if len(query) > 2 else query, dim=-1)
    similar = (padded @ own.T).masked_fill(beyond[:, :, None], -1.0)
    return similar.amax(dim=1).mean(dim=1)
