"""Stage III: item encoder and ranker trained together, on batches of queries with their candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixlm_rerank.model import MixLM
from mixlm_rerank.model.ranker import Prefix
from mixlm_rerank.model.readout import BI_ENCODER_SCALE
from mixlm_rerank.model.running import moved, of_like_length
from mixlm_rerank.systems.token_states import OnDisk
from mixlm_rerank.training.losses import OVER_CANDIDATES, LossWeights, hidden_alignment, listwise, pointwise
from mixlm_rerank.training.mix import Batch

__all__ = ["JointObjective"]


@dataclass(frozen=True)
class _Scored:
    """Scores of some query-document pairs of a batch, computed in one way: from embedding tokens or from text."""

    queries: Tensor  # row of each pair's query in the batch, int [pairs]
    documents: Tensor  # row of each pair's document in the batch, int [pairs]
    states: Tensor  # final hidden states, [pairs, d]
    scores: Tensor  # [pairs]
    residual: Tensor  # residual part of the scores, for every query and document of the batch, [q, n]

    def table(self) -> Tensor:
        """Scores as a matrix [q, n]; 0 for pairs without a score."""
        empty = torch.zeros(self.residual.shape, device=self.scores.device)
        return empty.index_put((self.queries, self.documents), self.scores.float())

    def mask(self) -> Tensor:
        """Which pairs have a score, bool [q, n]."""
        where = torch.zeros(self.residual.shape, dtype=torch.bool, device=self.scores.device)
        return where.index_put((self.queries, self.documents), where.new_ones(()))


class JointObjective(nn.Module):
    """``batch -> losses by name``; ``"loss"`` is their weighted sum. ``model`` is trained as a whole.

    ``temperature``, ``texts_per_query``: as in :class:`JointOptions`. ``folder``: where embedding tokens of a frozen
    item encoder are cached, see :class:`OnDisk`.
    """

    def __init__(
        self, model: MixLM, *, temperature: float = 1.0, texts_per_query: int = 2, folder: Path | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.texts_per_query = texts_per_query
        self._kept = OnDisk(folder)

    def forward(
        self, batch: Batch, weights: LossWeights, budgets: Sequence[int], whole: Batch | None = None
    ) -> dict[str, Tensor]:
        """``budgets``: token budgets of this step; losses are means over them.

        ``whole``: the batch that this one is a piece of. Losses are scaled so that they sum up to those of the whole.
        """
        model = self.model
        teacher, labels = batch.teacher.to(model.device), batch.labels.to(model.device)
        documents = self._documents(batch)
        states, queries = self._queries(batch.queries, weights)
        prefixes = model.ranker.prefixes(batch.queries)
        text, parts = None, []
        if weights.read_text:
            text = self._text(batch, model.readout.residual(queries, states, documents).detach())
        for tokens in budgets:
            read = documents[:, -tokens:]
            mixed = self._mixed(batch, prefixes, read, model.readout.residual(queries, states, read))
            parts.append(self._losses_of(mixed, text, teacher, labels, weights))
        losses = {name: torch.stack([one[name] for one in parts]).mean() for name in parts[0]}
        if weights.cosine:
            with torch.autocast(model.device.type, enabled=False):  # scaled by 20 to log-odds, hence float32
                embedded = [F.normalize(own.float(), dim=-1) for own in (queries, documents[:, -1])]
                cosines = embedded[0] @ embedded[1].T
            losses["cosine"] = listwise(teacher, BI_ENCODER_SCALE * cosines, ~teacher.isnan(), self.temperature)
        if text is not None and weights.text:
            losses["text"] = listwise(teacher, text.table(), text.mask() & ~teacher.isnan(), self.temperature)
        shares = self._shares(batch, whole or batch)
        losses = {name: shares.get(name, shares["listwise"]) * loss for name, loss in losses.items()}
        losses["loss"] = torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()
        return losses

    def _shares(self, batch: Batch, whole: Batch) -> dict[str, float]:
        """The batch's share of each loss of ``whole``: pointwise ones are means over pairs, the others over queries."""
        counts = []
        for one in (batch, whole):
            read = int(self._read(one).sum())
            known = {"sft": int((~one.labels.isnan()).sum()), "distill": int((~one.teacher.isnan()).sum())}
            counts.append({**known, "pred": read, "hidden": read, "listwise": len(one.queries)})
        return {name: count / max(1, counts[1][name]) for name, count in counts[0].items()}

    def _queries(self, texts: Sequence[str], weights: LossWeights) -> tuple[list[Tensor], Tensor]:
        """Item-encoder states of the queries and their embeddings, [q, d]; none and zeros if nothing needs them."""
        encoder = self.model.item_encoder
        if self.model.config.residual == "none" and not weights.cosine:
            return [], torch.zeros(len(texts), encoder.hidden_size, device=self.model.device)
        states = encoder.token_states(encoder.query_ids(texts))
        return states, torch.stack([encoder.embedding_of(own) for own in states])

    def _mixed(self, batch: Batch, prefixes: Sequence[Prefix], documents: Tensor, residual: Tensor) -> _Scored:
        """Score all pairs from embedding tokens [n, k, d]."""
        queries, rows = self._places(batch.mask)
        counts = batch.mask.sum(dim=1).tolist()
        items = self.model.project(documents)[rows].split(counts)
        titles = None
        if self.model.config.title_tokens and batch.titles:
            titles = self.model.ranker.titles(batch.titles)[batch.mask.nonzero()[:, 1]].split(counts)
        states = torch.cat(self.model.ranker.forward_packed(prefixes, items, titles))
        return _Scored(queries, rows, states, self.model.readout(states) + residual[queries, rows], residual)

    def _text(self, batch: Batch, residual: Tensor) -> _Scored:
        """Score some of each query's own pairs from the documents' text."""
        ranker, mask = self.model.ranker, self._read(batch)
        pairs = mask.nonzero().tolist()
        inputs = ranker.inputs(batch.queries)
        own = [inputs[query] for query, _ in pairs]
        texts = [batch.documents[row] for _, row in pairs]
        states = ranker.forward_texts(own, ranker.documents(texts, [len(prefix) for prefix in own]))
        queries, documents = self._places(mask)
        scores = self.model.readout(states) + residual[queries, documents]
        return _Scored(queries, documents, states, scores, residual)

    def _read(self, batch: Batch) -> Tensor:
        """The pairs that are read as text, bool [q, n]."""
        mask = torch.zeros_like(batch.mask)
        for query, rows in enumerate(batch.own):
            mask[query, rows[: self.texts_per_query]] = True
        return mask & batch.mask

    def _places(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of the entries that are set, found on the CPU to avoid synchronising with a GPU."""
        queries, documents = moved(mask.nonzero(), self.model.device).unbind(dim=1)
        return queries, documents

    def _losses_of(
        self, mixed: _Scored, text: _Scored | None, teacher: Tensor, labels: Tensor, weights: LossWeights
    ) -> dict[str, Tensor]:
        """Losses at one token budget; self-alignment uses the pairs that were scored both ways."""
        losses = {}
        for name, weight, targets in (("sft", weights.sft, labels), ("distill", weights.distill, teacher.sigmoid())):
            if weight:
                own = targets[mixed.queries, mixed.documents]
                losses[name] = pointwise(own[~own.isnan()], mixed.scores[~own.isnan()])
        for name, loss in OVER_CANDIDATES.items():
            if getattr(weights, name):
                losses[name] = loss(teacher, mixed.table(), ~teacher.isnan(), self.temperature)
        if weights.residual:
            losses["residual"] = listwise(teacher, mixed.residual, ~teacher.isnan(), self.temperature)
        if text is not None and (weights.pred or weights.hidden):
            both = text.mask()[mixed.queries, mixed.documents]  # which of these were read as text, in the same order
            aligned = {
                "pred": pointwise(text.scores.sigmoid(), mixed.scores[both]),
                "hidden": hidden_alignment(mixed.states[both], text.states),
            }
            losses |= {name: loss for name, loss in aligned.items() if getattr(weights, name)}
        return losses

    def _documents(self, batch: Batch) -> Tensor:
        """Embedding tokens [n, all, d]. Those of a frozen item encoder are cached on disk."""
        if batch.vectors is not None:
            return batch.vectors.to(self.model.device)
        texts = batch.documents
        if any(weight.requires_grad for weight in self.model.item_encoder.parameters()):
            return self._encoded(texts)
        new = [text for text in texts if text not in self._kept]
        if new:
            with torch.no_grad():
                for text, tokens in zip(new, self._encoded(new), strict=True):
                    self._kept[text] = tokens
        with torch.autocast(self.model.device.type, enabled=False):  # for bfloat16 it takes no float16
            return torch.stack([self._kept[text] for text in texts]).to(self.model.device, torch.float32)

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """Embedding tokens of texts; documents of similar length share a batch."""
        ids = self.model.item_encoder.document_ids(texts)
        found: dict[int, Tensor] = {}
        for rows in of_like_length(ids, self.model.device):
            found.update(zip(rows, self.model.item_encoder.forward_padded([ids[row] for row in rows]), strict=True))
        return torch.stack([found[row] for row in range(len(ids))])
