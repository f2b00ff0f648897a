"""The ranker's fast paths: many items of several queries per forward pass, equal to the plain path up to rounding."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...errors import InputError
from ..config import MixLMConfig
from ..ranker import Prefix, Ranker
from ..running import moved
from .attention import SHARED_PREFIX, attention_of
from .layout import PackedLayout
from .passes import BertPass, DecoderPass, packed_pass, plain_pass

if TYPE_CHECKING:
    from .graphs import GraphedPass

__all__ = ["FastRanker"]


class FastRanker(Ranker):
    """A ranker that shares a query's prefix among all its documents."""

    def __init__(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig) -> None:
        super().__init__(backbone, tokenizer, config)
        self._packed: BertPass | DecoderPass | GraphedPass | None = None
        self._plain = plain_pass(backbone) if self.mixes_both_ways else None
        if self.mixes_both_ways:
            return
        self._packed = packed_pass(backbone, self.mix_layer)
        backbone.set_attn_implementation(SHARED_PREFIX)
        if backbone.config._attn_implementation != SHARED_PREFIX:
            raise InputError(
                "it does not use the Transformers attention interface, by which candidates share a prefix "
                "(docs/models.md: what can be done with each kind)"
            )

    @property
    def packs_pairs(self) -> bool:
        """Whether, with a mix layer of an encoder, :meth:`forward_packed` is faster than :meth:`forward`."""
        return self._plain is not None

    @property
    def _checkpoints_activations(self) -> bool:
        """Whether activations are checkpointed, which only the backbone's own layers can do."""
        modules = self.backbone.modules() if self.training else []
        return any(getattr(module, "gradient_checkpointing", False) for module in modules)

    def below(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if self._plain is None or self.device.type != "cpu" or torch.is_grad_enabled():
            return super().below(inputs)
        return [self._plain.states(own[None], self.mix_layer)[0] for own in inputs]

    def forward_packed(
        self, prefixes: Sequence[Prefix], items: Sequence[Tensor], titles: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Hidden states at the score token, for several queries per forward pass.

        A query's prefix is shared by its items or, in an encoder with a mix layer, copied for each of them.

        Args:
            prefixes: one per query.
            items: projected embedding tokens of each query's documents, float [n, k, d], the same k for all.
            titles: :meth:`titles` of each query's documents, int [n, t]; None: they have none.

        Returns:
            float [n, d] for each query. Equal to :meth:`forward` up to rounding.
        """
        if titles is not None:
            return self._titled(prefixes, items, titles)
        if self.mixes_both_ways:
            return self._pairs(prefixes, items)
        counts = tuple(len(tokens) for tokens in items)
        tails = torch.stack([prefix.tail for prefix in prefixes])
        item_length = items[0].shape[1] + tails.shape[1]
        layout = PackedLayout(tuple(len(prefix) for prefix in prefixes), counts, item_length, self.family.causal)
        tokens = torch.cat(list(items))
        tails = tails.repeat_interleave(moved(torch.tensor(counts), self.device), dim=0, output_size=len(tokens))
        flat = torch.cat([*(own.states for own in prefixes), torch.cat([tokens, tails], dim=1).flatten(0, 1)])
        in_item = torch.arange(len(flat), device=self.device) >= sum(layout.prefix_lengths)
        positions, score_rows = layout.position_ids(self.device), layout.score_rows(self.device)
        if self._packed is not None and not self._checkpoints_activations:
            types = (in_item & self.segments).long()
            attention = attention_of(layout, self._packed.window, self.device, self._packed.head)
            states = self._packed(flat, positions + self.first_position, types, score_rows, attention)
            return list(states.split(list(counts)))
        unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)  # keeps Transformers from building a mask
        masks, given = dict.fromkeys(self._layer_types, unused), (flat[None], positions[None], in_item[None])
        states = self._through(self.mix_layer, self.layers, *given, masks, layout=layout)[0]
        return list(states[score_rows].split(list(counts)))

    def _titled(self, prefixes: Sequence[Prefix], items: Sequence[Tensor], titles: Sequence[Tensor]) -> list[Tensor]:
        """Pack documents whose titles have the same length together, so that there is no padding."""
        counts = [len(own) for own in items]
        lengths = torch.cat([(own >= 0).sum(dim=1) for own in titles])
        query_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(lengths.device)
        flat, ids = torch.cat(list(items)), torch.cat(list(titles))
        found, places = [], []
        for length in lengths.unique().tolist():
            at = (lengths == length).nonzero().flatten()
            queries, own = query_of[at].unique_consecutive(return_counts=True)
            heads = self.embedded(ids[at, :length])
            whole = torch.cat([heads, flat[moved(at, self.device)]], dim=1)
            found += self.forward_packed([prefixes[query] for query in queries.tolist()], whole.split(own.tolist()))
            places.append(at)
        return list(torch.cat(found)[moved(torch.cat(places).argsort(), self.device)].split(counts))

    def _pairs(self, prefixes: Sequence[Prefix], items: Sequence[Tensor]) -> list[Tensor]:
        """Put every item after a copy of its query's prefix; prefixes of one length go through the layers together."""
        if self._plain is None or self._checkpoints_activations:
            counts = [len(tokens) for tokens in items]
            own = [prefix for prefix, count in zip(prefixes, counts, strict=True) for _ in range(count)]
            return list(self(own, [item for tokens in items for item in tokens]).split(counts))
        found: list[Tensor] = [torch.empty(0)] * len(items)
        for length in {len(prefix) for prefix in prefixes}:
            rows = [row for row, prefix in enumerate(prefixes) if len(prefix) == length]
            counts = [len(items[row]) for row in rows]
            tokens = torch.cat([items[row] for row in rows])
            copies = [prefixes[row].states.expand(count, -1, -1) for row, count in zip(rows, counts, strict=True)]
            first = self.mixed(self._plain, torch.cat(copies), tokens)
            for row, own in zip(rows, first.split(counts), strict=True):
                found[row] = own
        return found

    def mixed(self, layers: BertPass, prefixes: Tensor, items: Tensor) -> Tensor:
        """Run the layers from the mix layer on. States [n, length, d], embedding tokens [n, k, d] -> [n, d]."""
        pairs = torch.cat([prefixes, items[:, :, : self.hidden_size]], dim=1)
        added = self._log_sizes(prefixes.shape[1], items) if items.shape[2] > self.hidden_size else None
        changing = prefixes.shape[1] if self.config.fixed_documents else None
        return layers.first_states(pairs, self.mix_layer, added, changing)

    def compile_packed(self) -> None:
        """Make :meth:`forward_packed` fast on a GPU, for a long-lived process: its first passes take a minute.

        Compiles the layers of decoders, and records forward passes as CUDA graphs. Does nothing elsewhere.
        """
        if self._packed is None or self.device.type != "cuda" or find_spec("triton") is None:
            return
        from .graphs import GraphedPass  # imports Triton

        packed = packed_pass(self.backbone, self.mix_layer)
        assert packed is not None
        if isinstance(packed, DecoderPass):
            packed.compile()
        self._packed = GraphedPass(packed)
