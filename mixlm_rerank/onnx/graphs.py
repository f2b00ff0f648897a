"""The exported graphs: item encoder and ranker as modules of plain tensors, for one text and for one query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model import MixLM
from ..model.fast.passes import BertPass, DecoderPass, PackedAttention, packed_pass

__all__ = ["ItemEncoderGraph", "RankerGraph", "SharedPrefix"]


class ItemEncoderGraph(nn.Module):
    """Token ids of one text, document or query, int64 [1, length] -> embedding tokens [1, k, d], states [length, d]."""

    def __init__(self, model: MixLM) -> None:
        super().__init__()
        self.encoder = model.item_encoder

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        states = self.encoder.states(ids)
        return self.encoder.sampled(states, ids), states[0]


class RankerGraph(nn.Module):
    """One query and its candidates -> log-odds, as the shared-prefix scorer computes them.

    The flattened sequence is the same, but attention is computed differently: tiles are cut in Python, from numbers
    that a graph does not know. With one prefix, plain matrix products need no tiles: :class:`SharedPrefix`.

    Raises InputError for a kind of ranker without a lean pass: only Transformers can run its layers.
    """

    def __init__(self, model: MixLM) -> None:
        super().__init__()
        self.model = model
        ranker, lean = model.ranker, packed_pass(model.ranker.backbone)
        if lean is None or (isinstance(lean, DecoderPass) and (ranker.mix_layer or lean.window is not None)):
            cut = f", cut at layer {ranker.mix_layer}," if ranker.mix_layer else ""
            raise InputError(
                f"{model.name} cannot be exported: its ranker is a {type(ranker.backbone).__name__}{cut} and what can "
                "be exported is BERT, RoBERTa, XLM-R, and without a mix layer or sliding window Llama, Mistral, Qwen2, "
                "Qwen3"
            )
        self._lean = lean

    def forward(self, prefix: Tensor, tokens: Tensor, states: Tensor | None = None) -> Tensor:
        """Log-odds, residual included, float32 [n].

        Args:
            prefix: token ids of prompt and query, int64 [length].
            tokens: embedding tokens, float32 [n, k, d].
            states: the query's, from the item encoder, [length, d]; None without a residual.
        """
        model = self.model
        embeds = model.ranker.backbone.get_input_embeddings()(prefix)
        items = model.project(tokens)
        scores = model.readout((self._pairs if model.ranker.mixes_both_ways else self._shared)(embeds, items))
        if states is None:
            return scores  # type: ignore[no-any-return]
        query = model.item_encoder.embedding_of(states)[None]
        return scores + model.readout.residual(query, [states], tokens)[0]  # type: ignore[no-any-return]

    def _shared(self, prefix: Tensor, items: Tensor) -> Tensor:
        """States of score tokens. Input embeddings of the prefix, [length, d], embedding tokens [n, k, d] -> [n, d]."""
        ranker, tail = self.model.ranker, self.model.ranker.tail()
        length, count, item = prefix.shape[0], items.shape[0], items.shape[1] + tail.shape[0]
        flat = torch.cat([prefix, torch.cat([items, tail.expand(count, -1, -1)], dim=1).flatten(0, 1)])
        positions = torch.cat([torch.arange(length), (length + torch.arange(item)).repeat(count)])
        types = ((torch.arange(flat.shape[0]) >= length) & ranker.segments).long()
        last = length + item - 1 + item * torch.arange(count)
        attention = SharedPrefix(length, count, item, ranker.family.causal)
        return self._lean(flat, positions + ranker.first_position, types, last, attention)

    def _pairs(self, prefix: Tensor, items: Tensor) -> Tensor:
        """As :meth:`_shared`, for a ranker whose prefix and documents see each other from the mix layer on."""
        assert isinstance(self._lean, BertPass)
        ranker, below = self.model.ranker, self._lean.states(prefix[None], self.model.ranker.mix_layer)
        return ranker.mixed(self._lean, below.expand(items.shape[0], -1, -1), items)


@dataclass(frozen=True)
class SharedPrefix(PackedAttention):
    """Attention over ``[prefix | item 1 | item 2 | ...]``, in matrix products over all items.

    Attributes:
        prefix: positions of the prefix.
        count: number of items.
        item: positions of each item.
        causal: whether a position sees only what comes before it.
    """

    prefix: int
    count: int
    item: int
    causal: bool

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        n, key, value = self.prefix, _grouped(key, query), _grouped(value, query)
        logits = torch.einsum("qhd,khd->hqk", query[:n], key[:n]) * scale
        of_prefix = torch.einsum("hqk,khd->qhd", self._masked(logits).softmax(dim=-1), value[:n])
        return torch.cat([of_prefix, self._items(query[n:], key, value, scale, self.item)])

    def attend_scores(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return self._items(query, _grouped(key, query), _grouped(value, query), scale, 1)

    def _items(self, query: Tensor, key: Tensor, value: Tensor, scale: float, rows: int) -> Tensor:
        """The last ``rows`` of every item attend to the prefix and their item. [items * rows, heads, d], in and out."""
        n, own = self.prefix, (self.count, self.item)
        to_prefix = torch.einsum("qhd,khd->hqk", query, key[:n]).unflatten(1, (self.count, rows))
        rows_of_each = query.unflatten(0, (self.count, rows))
        to_own = torch.einsum("iqhd,ikhd->hiqk", rows_of_each, key[n:].unflatten(0, own))
        to_own = to_own if rows == 1 else self._masked(to_own)
        weights = (torch.cat([to_prefix, to_own], dim=-1) * scale).softmax(dim=-1)
        from_prefix = torch.einsum("hqk,khd->qhd", weights[..., :n].flatten(1, 2), value[:n])
        from_own = torch.einsum("hiqk,ikhd->iqhd", weights[..., n:], value[n:].unflatten(0, own))
        return from_prefix + from_own.flatten(0, 1)

    def _masked(self, logits: Tensor) -> Tensor:
        """Apply the causal mask, if any. Queries and keys have the same positions. [..., n, n], in and out."""
        if not self.causal:
            return logits
        places = torch.arange(logits.shape[-1])
        return logits.masked_fill(places[:, None] < places, -torch.inf)


def _grouped(states: Tensor, query: Tensor) -> Tensor:
    """Keys or values, each head repeated for its group of query heads."""
    groups = query.shape[1] // states.shape[1]
    return states.repeat_interleave(groups, dim=1) if groups > 1 else states
