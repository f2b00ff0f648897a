"""The item encoder: document text -> embedding tokens, once per corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..progress import Progress
from .config import MixLMConfig
from .families import check_width, has_segments, longest_sequence, position_offset
from .fast.passes import plain_pass
from .layers import without_final_norm
from .running import inference, moved, positions_per_forward
from .sampling import clusters, last_states, rarity
from .template import ItemTexts

__all__ = ["GivenVectors", "ItemEncoder"]

# Token positions per forward pass on a CPU: on 2 cores 1,000 to 4,000 are equally fast, and more is slower.
POSITIONS_PER_FORWARD = 2048
# Matrix products of fewer than about 16 positions use another kernel, which rounds differently, so document batches are
# filled up to this. Query batches are not, and take another pass: no stored value depends on their last bits.
FEWEST_POSITIONS = 64
NOTHING = -20.0  # replaces the logarithm of 0


class ItemEncoder(nn.Module, ItemTexts):
    """F_E of the paper: a language model without head, and the pooling of its final hidden states.

    Sequences of a forward pass have the same length, so there is no padding and no mask. A document's tokens do not
    depend on its batch: alone, in any batch, or in a later update, it gets the same bits. (On a CPU, where tests check
    it. On a GPU the choice of kernel depends on the batch, and tokens agree up to rounding.)
    """

    rarity: Tensor

    def __init__(self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig) -> None:
        super().__init__()
        # states as one layer of a ranker passes them to the next
        self.backbone = without_final_norm(backbone) if config.mix_layer else backbone
        self.hidden_size: int = backbone.config.hidden_size
        if config.memory_tokens:
            check_width(backbone)
        self.memory = nn.Parameter(0.02 * torch.randn(config.memory_tokens, self.hidden_size, dtype=torch.float32))
        special = tokenizer.all_special_ids
        self.register_buffer("rarity", rarity(backbone.config.vocab_size, special), persistent=False)
        # a document is the second of the two texts that a cross-encoder reads
        self._segments = config.mix_layer > 0 and has_segments(backbone, tokenizer)
        self._plain = None if config.mix_layer else plain_pass(backbone)
        self._first_position = position_offset(backbone)
        positions = longest_sequence(backbone) - config.document_position
        if config.max_document_tokens + config.memory_tokens > positions:
            raise InputError(
                f"max_document_tokens={config.max_document_tokens} and {config.memory_tokens} memory tokens do not fit "
                f"into the item encoder's {positions} positions"
            )
        ItemTexts.__init__(self, tokenizer, config, min(config.max_query_tokens, positions))
        # tokens before the document, in the place of a query: they are read, but not pooled
        self.lead = self._document.before if config.mix_layer else 0

    @property
    def token_size(self) -> int:
        """Components of an embedding token: those of a state and, with pooling "clusters", a logarithm."""
        return self.hidden_size + (self.config.pooling == "clusters")

    def forward(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embedding tokens of documents. [b, length] -> [b, tokens, d].

        ``lengths``: of each document, [b], if they are padded at the end; the tokens then equal those of unpadded
        documents up to rounding. None: no padding.
        """
        return self.sampled(self.states(input_ids, lengths), input_ids, lengths)

    def forward_padded(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Embedding tokens of documents of any lengths in one forward pass, for training. -> [n, tokens, d]."""
        return self(*self._padded(ids))  # type: ignore[no-any-return]

    def states(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Final hidden states, memory tokens right after each text's own. [b, length] -> [b, length + memory, d]."""
        embeds, given = self._embeds(input_ids), {}
        if lengths is not None:
            count, places = len(self.memory), torch.arange(embeds.shape[1], device=embeds.device)
            if count:
                at = (lengths[:, None] + places[:count])[:, :, None].expand(-1, -1, embeds.shape[2])
                embeds = embeds.scatter(1, at, embeds[:, -count:])
            given["attention_mask"] = (places < lengths[:, None] + count).long()
        output = self.backbone(inputs_embeds=embeds, use_cache=False, **given, **self._placed(embeds))
        return output.last_hidden_state  # type: ignore[no-any-return]

    def _placed(self, embeds: Tensor) -> dict[str, Tensor]:
        """Position ids and token types, where they differ from the backbone's defaults."""
        placed, places = {}, torch.arange(embeds.shape[1], device=embeds.device)
        if self.config.document_position:
            own = places + (self.config.document_position - self.lead) * (places >= self.lead)
            placed["position_ids"] = (own + self._first_position).expand(len(embeds), -1)
        if self._segments:
            placed["token_type_ids"] = (places >= self.lead).long().expand(len(embeds), -1)
        return placed

    def _embeds(self, input_ids: Tensor) -> Tensor:
        embeds: Tensor = self.backbone.get_input_embeddings()(input_ids)
        if len(self.memory):
            memory = self.memory.to(embeds.dtype).expand(len(input_ids), -1, -1)
            embeds = torch.cat([embeds, memory], dim=1)
        return embeds

    def token_states(self, ids: Sequence[Sequence[int]]) -> list[Tensor]:
        """Final hidden states, memory tokens included: one [length, d] a text, in one forward pass."""
        states = self.states(*self._padded(ids))
        return [own[: len(row) + len(self.memory)] for own, row in zip(states, ids, strict=True)]

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids padded at the end, [n, longest], and lengths, [n]."""
        padded = pad_sequence([torch.tensor(row, dtype=torch.long) for row in ids], batch_first=True)
        device = self.backbone.device
        return padded.to(device), torch.tensor([len(row) for row in ids], device=device)

    def sampled(self, states: Tensor, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Final hidden states of texts -> embedding tokens. [b, length + memory, d], [b, length] -> [b, tokens, d].

        ``lengths``: of the texts without memory tokens, [b], if they are padded; None: no padding.
        """
        lead = min(self.lead, ids.shape[1] - 1)
        states, ids = states[:, lead:], ids[:, lead:]
        lengths = None if lengths is None else (lengths - lead).clamp(min=1)
        if self.config.pooling == "clusters":
            means, sizes = clusters(states, ids, self.rarity[ids].float(), self.config.tokens, lengths)
            logarithms = sizes.log().clamp(min=NOTHING)[:, :, None].to(means.dtype)
            return torch.cat([means, logarithms], dim=2)
        count, memory = self.config.tokens, len(self.memory)
        whole_lengths = None if lengths is None else lengths + memory
        if self.config.pooling == "last":
            return last_states(states, count, whole_lengths)
        text = states[:, : ids.shape[1]]
        whole = self._whole(text, lengths)
        if memory:
            return torch.cat([last_states(states, count - 1, whole_lengths), whole[:, 1:]], dim=1)
        parts = [whole[:, -count:]]
        if count > 2:
            parts.insert(0, clusters(text, ids, self.rarity[ids].float(), count - 2, lengths)[0])
        return torch.cat(parts, dim=1)

    def _whole(self, text: Tensor, lengths: Tensor | None = None) -> Tensor:
        """First state and mean, ordered so that the bi-encoder's embedding is last. [b, length, d] -> [b, 2, d]."""
        if lengths is None:
            mean = text.mean(dim=1, keepdim=True)
        else:
            real = torch.arange(text.shape[1], device=text.device) < lengths[:, None]
            mean = (text * real[:, :, None]).sum(dim=1, keepdim=True) / lengths[:, None, None]
        first = text[:, :1]
        return torch.cat([mean, first] if self.config.pooling == "cls" else [first, mean], dim=1)

    def encode(self, texts: Sequence[str], *, bar: Progress | None = None) -> NDArray[np.float32]:
        """Embedding tokens of documents. Returns float32 [n, tokens, d].

        ``bar.update(count)`` is called after every batch (a tqdm bar will do). Raises InputError if a text gives a
        non-finite state (a broken checkpoint).
        """
        ids = self.document_ids(texts)
        out = np.empty((len(ids), self.config.tokens, self.token_size), dtype=np.float32)
        with inference(self):
            for rows, batch in self._batches(ids):
                copies = -(-FEWEST_POSITIONS // max(batch.numel(), 1))
                states = self.states(batch.repeat(copies, 1))[: len(rows)]
                out[rows] = self.sampled(states, batch).float().cpu().numpy()
                if bar is not None:
                    bar.update(len(rows))
            if not np.isfinite(out).all():
                row = int(np.flatnonzero(~np.isfinite(out).all(axis=(1, 2)))[0])
                raise InputError(f"the item encoder gave a non-finite embedding token for text {row}: broken weights?")
            return out

    def query_states(self, queries: Sequence[str]) -> list[Tensor]:
        """Final hidden states of queries, memory tokens included, for the residual. float32 [length, d] each."""
        states: dict[int, Tensor] = {}
        with inference(self):
            for rows, batch in self._batches(self.query_ids(queries)):
                found = self.states(batch) if self._plain is None else self._plain.states(self._embeds(batch))
                states |= dict(zip(rows, found.float(), strict=True))
            return [states[row] for row in range(len(queries))]

    def embedding_of(self, states: Tensor) -> Tensor:
        """The bi-encoder's embedding of a text, computed from its states. [length, d] -> [d]."""
        if self.config.pooling == "last":
            return states[-1]
        return self._whole(states[None, : states.shape[0] - len(self.memory)])[0, -1]

    def embed_queries(self, queries: Sequence[str]) -> Tensor:
        """The bi-encoder's query embeddings. Returns float32 [n, d] on the CPU."""
        found = [self.embedding_of(states) for states in self.query_states(queries)]
        return torch.stack(found).cpu() if found else torch.empty(0, self.hidden_size, dtype=torch.float32)

    def _batches(self, ids: list[list[int]]) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of one length: row numbers, ids [b, length]. Longest first, so lack of memory shows at once."""
        by_length: dict[int, list[int]] = {}
        for row, sequence in enumerate(ids):
            by_length.setdefault(len(sequence), []).append(row)
        device = self.backbone.device
        for length in sorted(by_length, reverse=True):
            size = max(1, positions_per_forward(device, POSITIONS_PER_FORWARD) // max(length, 1))
            for start in range(0, len(by_length[length]), size):
                rows = by_length[length][start : start + size]
                yield rows, moved(torch.tensor([ids[row] for row in rows], dtype=torch.long), device)


class GivenVectors(ItemEncoder):
    """Replaces the item encoder where documents are the user's own vectors: of images, audio, products.

    It has the interface of an item encoder and no weights: the projector, which is trained with the ranker, reads the
    vectors. Raises InputError if asked to encode a text.
    """

    text_tokens = 0

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: MixLMConfig) -> None:
        """``tokenizer``: the ranker's, which truncates queries."""
        nn.Module.__init__(self)
        self.tokenizer, self.config = tokenizer, config
        self.hidden_size = config.vectors

    def _refuse(self, *arguments: object, **options: object) -> NoReturn:
        raise InputError(
            f"this model encodes no texts: its documents are vectors of {self.hidden_size} numbers, which must be in "
            "the index (mixlm-rerank index import FILE INDEX --model MODEL)"
        )

    readable = document_ids = query_ids = encode = query_states = _refuse
