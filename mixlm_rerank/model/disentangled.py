"""DeBERTa's disentangled attention (2006.03654), which by itself takes nothing that is added to its logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

__all__ = ["take_added_logits"]


def take_added_logits(backbone: PreTrainedModel) -> None:
    """In place: let all attention of a DeBERTa take a mask of floats; other backbones do."""
    for module in backbone.modules():
        if type(module) is DisentangledSelfAttention:
            module.__class__ = _AddingAttention


class _AddingAttention(DisentangledSelfAttention):
    """The same weights and logits. The mask is bool, or added to the logits, [b, 1, length, length]."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        heads = self.num_attention_heads
        projections: tuple[Any, ...] = (self.query_proj, self.key_proj, self.value_proj)
        q, k, v = (self.transpose_for_scores(part(hidden_states), heads) for part in projections)
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        added = attention_mask
        if not added.is_floating_point():
            # finite, for rows of padding that see nothing
            added = torch.zeros_like(added, dtype=q.dtype).masked_fill(~added.bool(), torch.finfo(q.dtype).min)
        if self.relative_attention:
            of_positions: Any = self.disentangled_attention_bias
            bias = of_positions(q, k, relative_pos, self.pos_dropout(rel_embeddings), terms)
            added = added + bias.unflatten(0, (-1, heads))
        q, k, v = (part.unflatten(0, (-1, heads)) for part in (q, k, v))
        dropout = self.dropout.p if self.training else 0.0
        scale = (self.attention_head_size * terms) ** -0.5
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout, scale=scale)
        return attended.transpose(1, 2).flatten(2), None
