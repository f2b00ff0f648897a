"""The ranker: query text and a document (embedding tokens, or text) -> the hidden state that is read out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from .attention import SHARED_PREFIX, PackedLayout, visible
from .config import MixLMConfig
from .families import Family, position_offset
from .packed import DecoderPass, packed_pass
from .template import Template, text_ids
from .transfer import moved

__all__ = ["Ranker"]


class Ranker(nn.Module):
    """F_R of the paper. Reads ``[prefix(query) ; document ; score token]`` and returns the last hidden state.

    Two ways that give the same states: :meth:`forward` takes whole sequences, each with its own prefix;
    :meth:`forward_packed` shares a query's prefix among all its documents.
    """

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig, family: Family
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.family = family
        self.hidden_size: int = backbone.config.hidden_size
        self._prompt = Template(tokenizer, config.prompt, config.max_query_tokens)
        self._score_id: int = tokenizer.get_vocab()[config.score_token]
        self._max_document_tokens = config.max_document_tokens
        self._layer_types = set(getattr(backbone.config, "layer_types", None) or ["full_attention"])
        parameters = inspect.signature(backbone.forward).parameters
        self._segments = "token_type_ids" in parameters and getattr(backbone.config, "type_vocab_size", 0) > 1
        self._first_position = position_offset(backbone)
        self.max_positions: int = backbone.config.max_position_embeddings - self._first_position
        if self._prompt.max_tokens + config.tokens + 1 > self.max_positions:
            raise InputError(
                f"max_query_tokens={config.max_query_tokens} and {config.tokens} embedding tokens do not fit into the "
                f"ranker's {self.max_positions} positions"
            )
        self._packed = packed_pass(backbone)
        backbone.set_attn_implementation(SHARED_PREFIX)
        if backbone.config._attn_implementation != SHARED_PREFIX:
            raise InputError(f"{type(backbone).__name__} does not use the Transformers attention interface")

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.dtype

    @property
    def _checkpoints_activations(self) -> bool:
        """Whether the backbone's own layers have to run, which know how."""
        modules = self.backbone.modules() if self.training else []
        return any(getattr(module, "gradient_checkpointing", False) for module in modules)

    def prefixes(self, queries: Sequence[str]) -> list[Tensor]:
        """Input embeddings of the prompt with each query. float [length, d] each."""
        return self._embed_each(self._prompt.ids(queries))

    def documents(self, texts: Sequence[str], prefix_lengths: Sequence[int]) -> list[Tensor]:
        """Input embeddings of document texts, cut to ``max_document_tokens`` and to the room after the prefix."""
        room = [
            min(self._max_document_tokens, self.max_positions - length - 1)  # 1: the score token
            for length in prefix_lengths
        ]
        return self._embed_each([ids[:most] for ids, most in zip(text_ids(self.tokenizer, texts), room, strict=True)])

    def forward(self, prefixes: Sequence[Tensor], documents: Sequence[Tensor]) -> Tensor:
        """Hidden states at the score token, each document with its own prefix: the plain way.

        Args:
            prefixes: input embeddings, float [prefix_length, d] each.
            documents: embedding tokens (projected) or text embeddings, float [length, d] each.

        Returns:
            float [n, d]. Sequences are padded at the end and the padding is masked.
        """
        score = self._embed([self._score_id])
        whole = [torch.cat([prefix, document, score]) for prefix, document in zip(prefixes, documents, strict=True)]
        lengths = torch.tensor([len(sequence) for sequence in whole], device=self.device)
        prefix_lengths = torch.tensor([len(prefix) for prefix in prefixes], device=self.device)
        embeds = pad_sequence(list(whole), batch_first=True)
        positions = torch.arange(embeds.shape[1], device=self.device)
        masks = {kind: self._mask(positions, prefix_lengths, lengths, kind) for kind in self._layer_types}
        states = self._run(embeds, positions.expand(len(whole), -1), positions >= prefix_lengths[:, None], masks)
        return states[torch.arange(len(whole), device=self.device), lengths - 1]

    def forward_packed(self, prefixes: Sequence[Tensor], items: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states at the score token, a query's prefix shared by its items, several queries a forward pass.

        Args:
            prefixes: input embeddings of each query, float [prefix_length, d].
            items: projected embedding tokens of each query's documents, float [n, k, d], the same k for all.

        Returns:
            float [n, d] for each query. Equal to :meth:`forward` up to rounding.
        """
        counts = tuple(len(tokens) for tokens in items)
        item_length = items[0].shape[1] + 1
        layout = PackedLayout(tuple(len(prefix) for prefix in prefixes), counts, item_length, self.family.causal)
        tokens = torch.cat(list(items))
        score = self._embed([self._score_id]).expand(len(tokens), 1, -1)
        flat = torch.cat([*prefixes, torch.cat([tokens, score], dim=1).flatten(0, 1)])
        in_item = torch.arange(len(flat), device=self.device) >= sum(layout.prefix_lengths)
        positions, score_rows = layout.position_ids(self.device), layout.score_rows(self.device)
        if self._packed is not None and not self._checkpoints_activations:
            types = (in_item & self._segments).long()
            attention = self._packed.attention(layout, self.device)
            states = self._packed(flat, positions + self._first_position, types, score_rows, attention)
            return list(states.split(list(counts)))
        unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)  # keeps Transformers from building one
        masks = dict.fromkeys(self._layer_types, unused)
        states = self._run(flat[None], positions[None], in_item[None], masks, layout)[0]
        return list(states[score_rows].split(list(counts)))

    def compile_packed(self) -> None:
        """Make :meth:`forward_packed` fast on a GPU, for a process that lives long: its first passes take a minute.

        Layers of decoders are compiled, and forward passes recorded as CUDA graphs. Elsewhere nothing happens.
        """
        if self._packed is None or self.device.type != "cuda" or find_spec("triton") is None:
            return
        from .graphs import GraphedPass

        packed = packed_pass(self.backbone)
        assert packed is not None
        if isinstance(packed, DecoderPass):
            packed.compile()
        self._packed = GraphedPass(packed)

    def _run(
        self,
        embeds: Tensor,
        positions: Tensor,
        in_document: Tensor,
        masks: dict[str, Tensor],
        layout: PackedLayout | None = None,
    ) -> Tensor:
        extra: dict[str, Any] = {"token_type_ids": in_document.long()} if self._segments else {}
        if layout is not None:
            extra["layout"] = layout
        output = self.backbone(
            inputs_embeds=embeds,
            position_ids=positions + self._first_position,
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),  # some models know layer types
            use_cache=False,
            **extra,
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def _mask(self, positions: Tensor, prefix_lengths: Tensor, lengths: Tensor, layer_type: str) -> Tensor:
        """bool [n, 1, length, length], True = may see. Prefix positions never see the document."""
        mask = visible(positions, positions, causal=self.family.causal, window=self._window(layer_type))
        in_prefix = positions < prefix_lengths[:, None]
        blind = in_prefix[:, :, None] & ~in_prefix[:, None, :]
        real = (positions < lengths[:, None])[:, None, :]
        padding = (positions >= lengths[:, None])[:, :, None] & in_prefix[:, None, :]  # its rows must see something
        return ((mask & ~blind & real) | padding)[:, None]

    def _window(self, layer_type: str) -> int | None:
        config = self.backbone.config
        every_layer = getattr(config, "layer_types", None) is None and getattr(config, "use_sliding_window", True)
        if layer_type == "full_attention" and not (every_layer and getattr(config, "sliding_window", None)):
            return None  # Mistral and the like name no layer types: a window, if there is one, holds for all
        window = int(config.sliding_window)
        return window if self.family.causal else window + 1  # Transformers: causal exclusive, bidirectional inclusive

    def _embed_each(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        flat = self._embed([token for ids in rows for token in ids])
        return list(flat.split([len(ids) for ids in rows]))

    def _embed(self, ids: Sequence[int]) -> Tensor:
        embedding = self.backbone.get_input_embeddings()
        return embedding(moved(torch.tensor(ids, dtype=torch.long), self.device))  # type: ignore[no-any-return]
