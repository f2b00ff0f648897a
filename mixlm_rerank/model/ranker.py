"""The ranker: query text and a document (embedding tokens, or text) -> the hidden state that is read out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from .config import MixLMConfig
from .families import check_width, family_of_config, has_segments, longest_sequence, position_offset
from .layers import fixed, may_attend, span, take_added_logits, window_of
from .running import moved
from .template import following_ids, plain_end, prefix_template, special_ids

__all__ = ["Prefix", "Ranker"]


@dataclass(frozen=True)
class Prefix:
    """The input that all candidates of a query share at the mix layer: input embeddings at layer 0, else states.

    Attributes:
        states: prompt and query, [length, d].
        tail: what follows the document, [s, d]. Its last position is the score token, whose final state is read out;
            without a tail, that is the first position of ``states``.
    """

    states: Tensor
    tail: Tensor

    def __len__(self) -> int:
        return len(self.states)


class Ranker(nn.Module):
    """F_R of the paper. Reads ``[prefix(query) ; document ; score token]`` and returns the last hidden state.

    The plain implementation, :meth:`forward`, takes whole sequences, each with its own prefix;
    :class:`.fast.ranker.FastRanker` shares a query's prefix among all its documents. Documents enter at the mix layer;
    below it the prefix is alone. In full-text mode, :meth:`forward_texts`, documents are read as text from layer 0 on.

    An encoder with a mix layer shares the prefix only up to that layer. From there on query and document see each
    other, as in the cross-encoder that it was cut out of, and the first token is the score token. With fixed documents
    only the query sees the document, whose states stay as they enter.
    """

    def __init__(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig) -> None:
        super().__init__()
        self.backbone, self.tokenizer, self.config = backbone, tokenizer, config
        self.family = family_of_config(backbone.config)
        self.hidden_size: int = backbone.config.hidden_size
        self.mix_layer = config.mix_layer
        self.mixes_both_ways = config.mix_layer > 0 and not self.family.causal
        if config.fixed_documents and self.family.causal:
            raise InputError("fixed_documents is for encoders: in a decoder the document comes after the query")
        self.prompt = prefix_template(tokenizer, config)
        joined = "{document}" in config.prompt
        self._before_document = plain_end(tokenizer, config.prefix.partition("{text}")[2]) if joined else ""
        self._suffix = special_ids(tokenizer, config.suffix)
        self._layer_types = set(getattr(backbone.config, "layer_types", None) or ["full_attention"])
        self.segments = has_segments(backbone, tokenizer if self.mix_layer else None)
        self.layers: int = backbone.config.num_hidden_layers
        if not self.mix_layer:
            check_width(backbone)
        if self.mix_layer >= self.layers:
            raise InputError(f"mix_layer={self.mix_layer}, but the ranker's layers are 0 to {self.layers - 1}")
        self.first_position = position_offset(backbone)
        self.max_positions = longest_sequence(backbone)
        if self.prompt.max_tokens + config.title_tokens + config.tokens + len(self._suffix) > self.max_positions:
            titles = f", {config.title_tokens} title tokens" if config.title_tokens else ""
            raise InputError(
                f"max_query_tokens={config.max_query_tokens}{titles} and {config.tokens} embedding tokens do not fit "
                f"into the ranker's {self.max_positions} positions"
            )
        if self.mixes_both_ways:
            take_added_logits(backbone)

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.dtype

    def inputs(self, queries: Sequence[str]) -> list[Tensor]:
        """Input embeddings of the prompt with each query. float [length, d] each."""
        return self._embed_each(self.prompt.ids(queries))

    def prefixes(self, queries: Sequence[str]) -> list[Prefix]:
        """The :class:`Prefix` of each query, shared by its candidates."""
        inputs, suffix = self.inputs(queries), self.tail()
        if not self.mix_layer:
            return [Prefix(own, suffix) for own in inputs]
        if self.family.causal:  # the suffix directly follows the prefix
            inputs = [torch.cat([own, suffix]) for own in inputs]
        states = self.below(inputs)
        if self.family.causal:
            return [Prefix(own[: -len(suffix)], own[-1:]) for own in states]
        return [Prefix(own, own[:0]) for own in states]

    def below(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run first-segment texts through the layers below the mix layer. Input embeddings -> states, same shapes."""
        return self.states(inputs, [len(own) for own in inputs], 0, self.mix_layer)

    def tail(self) -> Tensor:
        """Input embeddings of what follows the document, [s, d]."""
        return self._embed_each([self._suffix])[0]

    def positions(self, prefix_length: int, tokens: int) -> tuple[int, int]:
        """Positions that the layers above the mix layer compute: once per query, and for each of its items."""
        if not self.mixes_both_ways:
            return prefix_length, tokens + 1
        return 0, prefix_length + (0 if self.config.fixed_documents else tokens)

    def documents(self, texts: Sequence[str], prefix_lengths: Sequence[int]) -> list[Tensor]:
        """Input embeddings of document texts, for full-text mode, truncated to the room after the prefix.

        Without a mix layer a document has at most ``max_document_tokens``. With one, the whole sequence is truncated
        where the item encoder's documents end, as the cross-encoder does.
        """
        longest, most = self.config.max_document_tokens, self.max_positions
        if self.mix_layer:
            most = min(most, self.config.document_position + longest)
        room = [max(0, most - length - len(self._suffix)) for length in prefix_lengths]
        room = room if self.mix_layer else [min(longest, left) for left in room]
        found = following_ids(self.tokenizer, texts, self._before_document)
        return self._embed_each([ids[:most] for ids, most in zip(found, room, strict=True)])

    def titles(self, texts: Sequence[str]) -> Tensor:
        """Token ids of titles, tokenised like the beginning of a document in full-text mode, cut to ``title_tokens``.

        Returns:
            int32 [n, title_tokens] on the CPU; -1 after the end of a shorter title.
        """
        found = following_ids(self.tokenizer, texts, self._before_document)
        ids = [own if text.strip() else [] for text, own in zip(texts, found, strict=True)]  # a blank would give one
        most = self.config.title_tokens
        rows = [(own + [-1] * most)[:most] for own in ids]
        return torch.tensor(rows, dtype=torch.int32).view(len(texts), most)

    def embedded(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids. int [...] -> [..., d]"""
        return self.backbone.get_input_embeddings()(moved(ids.long(), self.device))  # type: ignore[no-any-return]

    def forward_texts(self, inputs: Sequence[Tensor], documents: Sequence[Tensor]) -> Tensor:
        """Full-text mode: hidden states at the score token, [n, d].

        With a mix layer the backbone runs as a cross-encoder, in which the query sees the document.

        Args:
            inputs: :meth:`inputs` of each document's query.
            documents: :meth:`documents`.
        """
        suffix = self.tail()
        if not self.mix_layer:
            return self([Prefix(own, suffix) for own in inputs], documents)  # type: ignore[no-any-return]
        whole = [torch.cat([own, document, suffix]) for own, document in zip(inputs, documents, strict=True)]
        states = self.states(whole, [len(own) for own in inputs], 0, self.layers)
        return torch.stack([own[-1 if self.family.causal else 0] for own in states])

    def forward(self, prefixes: Sequence[Prefix], documents: Sequence[Tensor]) -> Tensor:
        """Hidden states at the score token, each document with its own prefix: the plain implementation.

        Args:
            prefixes: one per document.
            documents: projected embedding tokens, or text embeddings at layer 0, float [length, d] each. Components
                beyond the d-th are added to the logits of all attention to the token: the logarithm of how many states
                it stands for (ToMe's proportional attention, 2210.09461).

        Returns:
            float [n, d]. Sequences are padded at the end and the padding is masked.
        """
        tokens = [document[:, : self.hidden_size] for document in documents]
        whole = [torch.cat([own.states, document, own.tail]) for own, document in zip(prefixes, tokens, strict=True)]
        lengths = torch.tensor([len(sequence) for sequence in whole], device=self.device)
        prefix_lengths = torch.tensor([len(prefix) for prefix in prefixes], device=self.device)
        embeds = pad_sequence(list(whole), batch_first=True)
        positions = torch.arange(embeds.shape[1], device=self.device)
        masks = {kind: self._mask(positions, prefix_lengths, lengths, kind) for kind in self._layer_types}
        if self.mixes_both_ways:
            sizes = [self._log_sizes(len(own), document) for own, document in zip(prefixes, documents, strict=True)]
            added = pad_sequence(sizes, batch_first=True)[:, None, None]
            masks = {kind: added.masked_fill(~mask, -torch.inf) for kind, mask in masks.items()}
        in_document = positions >= prefix_lengths[:, None]
        with fixed(self.backbone, embeds, in_document) if self.config.fixed_documents else nullcontext():
            places = positions.expand(len(whole), -1)
            output = self._through(self.mix_layer, self.layers, embeds, places, in_document, masks)
        return output[torch.arange(len(whole), device=self.device), 0 if self.mixes_both_ways else lengths - 1]

    def _log_sizes(self, prefix_length: int, tokens: Tensor) -> Tensor:
        """Values added to attention logits: 0 for the prefix. [..., k, d or d + 1] -> [..., prefix_length + k]"""
        sizes = tokens[..., self.hidden_size :].sum(dim=-1)  # 0 if there is none
        return nn.functional.pad(sizes, (prefix_length, 0))

    def states(self, sequences: Sequence[Tensor], prefix_lengths: Sequence[int], start: int, stop: int) -> list[Tensor]:
        """Run layers ``start`` to ``stop - 1`` with the backbone's own attention masks.

        Args:
            sequences: input of the first of these layers, float [length, d] each.
            prefix_lengths: lengths of the first text in each sequence.

        Returns:
            Output of the last of these layers, float [length, d] each.
        """
        lengths = [len(sequence) for sequence in sequences]
        embeds = pad_sequence(list(sequences), batch_first=True)
        positions = torch.arange(embeds.shape[1])
        real, in_prefix = (positions < torch.tensor(own)[:, None] for own in (lengths, prefix_lengths))
        places, mask = positions.expand(len(embeds), -1), moved(real.long(), self.device)
        output = self._through(start, stop, embeds, places, ~in_prefix, mask)
        return [own[:length] for own, length in zip(output, lengths, strict=True)]

    def _through(
        self, start: int, stop: int, embeds: Tensor, positions: Tensor, in_document: Tensor, mask: Any, **extra: Any
    ) -> Tensor:
        """Run layers ``start`` to ``stop - 1``. ``mask``: one for all layers, or one for each type of layer."""
        if isinstance(mask, dict) and len(mask) == 1:  # not all models know layer types
            (mask,) = mask.values()
        if self.segments:
            extra["token_type_ids"] = moved(in_document.long(), self.device)
        part = self.backbone if stop - start == self.layers else span(self.backbone, start, stop)
        places = moved(positions + self.first_position, self.device)
        output = part(inputs_embeds=embeds, position_ids=places, attention_mask=mask, use_cache=False, **extra)
        return output.last_hidden_state  # type: ignore[no-any-return]

    def _mask(self, positions: Tensor, prefix_lengths: Tensor, lengths: Tensor, layer_type: str) -> Tensor:
        """bool [n, 1, length, length], True = may see. Prefixes see documents only in a ranker that mixes both ways."""
        causal = self.family.causal
        window = window_of(self.backbone.config, layer_type, causal=causal)
        mask = may_attend(positions, positions, causal=causal, window=window)
        in_prefix = positions < prefix_lengths[:, None]
        blind = in_prefix[:, :, None] & ~in_prefix[:, None, :] & (not self.mixes_both_ways)
        real = (positions < lengths[:, None])[:, None, :]
        padding = (positions >= lengths[:, None])[:, :, None] & in_prefix[:, None, :]  # padding rows must see something
        return ((mask & ~blind & real) | padding)[:, None]

    def _embed_each(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        flat = self.embedded(torch.tensor([token for ids in rows for token in ids], dtype=torch.long))
        return list(flat.split([len(ids) for ids in rows]))
