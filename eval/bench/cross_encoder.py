"""The cross-encoder of the same backbone in sentence-transformers: the MixLM's ranker with a random head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

from mixlm_rerank.errors import InputError
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import quiet
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.peers import load_cross_encoder

__all__ = ["DEFAULT_BATCH", "PredictScorer", "check_bert", "write_cross_encoder"]

DEFAULT_BATCH = 32  # of CrossEncoder.predict


def check_bert(model: MixLM) -> None:
    """Raises InputError for a ranker that is no BERT: no cross-encoder is made of it here."""
    kind = type(model.ranker.backbone).__name__
    if kind != "BertModel":
        raise InputError(f"the grid compares MixLMs whose ranker is a BertModel with its cross-encoder, not a {kind}")


def write_cross_encoder(model: MixLM, folder: Path) -> None:
    """A BertForSequenceClassification with the ranker's weights and a random head, and the ranker's tokenizer."""
    settings = model.ranker.backbone.config.to_dict()
    for name in ("architectures", "id2label", "label2id"):
        settings.pop(name, None)
    torch.manual_seed(0)
    with quiet():
        classifier = BertForSequenceClassification(BertConfig(**settings | {"num_labels": 1}))
        body = {name: weight.float() for name, weight in model.ranker.backbone.state_dict().items()}
        report = classifier.bert.load_state_dict(body, strict=False)
        left = [name for name in report.missing_keys if not name.startswith("pooler.")] + report.unexpected_keys
        if left:
            raise InputError(f"the ranker's weights do not make a cross-encoder: {left[0]!r} has no counterpart")
        classifier.save_pretrained(folder)
        model.ranker.tokenizer.save_pretrained(folder)


class PredictScorer:
    """``CrossEncoder.predict``, which sorts the pairs by length itself.

    Attributes:
        longest: positions that a pair may have; a longer one loses the end of its longer text.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        with quiet():
            self._encoder = load_cross_encoder(str(folder), None, Loading("cpu", dtype, offline=True))
        positions = int(self._encoder.config.max_position_embeddings)
        self.longest = min(int(self._encoder.max_seq_length or positions), positions)
        self._encoder.max_seq_length = self.longest

    @property
    def tokenizer(self) -> Any:
        return self._encoder.tokenizer

    def positions(self, query: str, text: str) -> int:
        """Positions of the pair as it is read."""
        return len(self.tokenizer(query, text, truncation=True, max_length=self.longest)["input_ids"])

    def scores(self, query: str, texts: Sequence[str], batch_size: int = DEFAULT_BATCH) -> NDArray[np.float32]:
        """Logits, float32 [n]."""
        found: NDArray[np.float32] = self._encoder.predict(
            [(query, text) for text in texts],
            batch_size=batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
        return found
