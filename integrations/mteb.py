"""mteb: runs reranking tasks, with one token index per task. docs/integrations/mteb.md has an example that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.fingerprint import weights_hash
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Document

with optional_import("this needs mteb 2.6", "mteb"):
    from mteb.models import ModelMeta

__all__ = ["MixLMSearch"]

# Fields of ModelMeta that cannot be read from a model's files.
UNKNOWN = (
    *("release_date", "memory_usage_mb", "license", "open_weights", "public_training_code", "public_training_data"),
    *("similarity_fn_name", "training_datasets"),
)


class MixLMSearch:
    """Implements mteb's SearchProtocol, for tasks that come with candidates (``top_ranked``).

    Args:
        model: the MixLM.
        folder: folder of the indexes; an existing index is brought up to date with its corpus.
        tokens: the token budget.
    """

    def __init__(self, model: MixLM, folder: str | Path, tokens: int | None = None) -> None:
        self.model = model
        self.folder = Path(folder)
        self.tokens = tokens
        self._index: TokenIndex | None = None

    def index(self, corpus: Any, *, task_metadata: Any, hf_split: str, hf_subset: str, **options: Any) -> None:
        """Build the task's index, or bring it up to date. Documents without text are left out, and ranked last."""
        path = self.folder / "-".join([task_metadata.name, hf_subset, hf_split]).replace("/", "_")
        documents = _Documents(corpus)
        if path.exists():
            self._index = TokenIndex(path)
            self._index.sync(documents, self.model, skip_empty=True)
        else:
            self._index = TokenIndex.build(documents, self.model, path, corpus=task_metadata.name, skip_empty=True)

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **options: Any
    ) -> dict[str, dict[str, float]]:
        """qid -> {docid: log-odds} of each query's best ``top_k`` candidates; below -10,000 if one was not scored.

        Raises InputError for a task without candidates, or if ``index`` was not called.
        """
        if top_ranked is None:
            raise InputError(
                "MixLM reranks: give a task with candidates (a Reranking task, or one with task.convert_to_reranking)"
            )
        if self._index is None:
            raise InputError("index(corpus, ...) comes before search(queries, ...)")
        texts = {str(row["id"]): _query(row) for row in queries}
        hits = {qid: top_ranked.get(qid, []) for qid in texts}
        ranked = Reranker(self.model, self._index, tokens=self.tokens).rerank_batch(texts, hits, top_k)
        return {qid: {doc.docid: doc.score for doc in docs} for qid, docs in ranked.items()}

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """The known metadata of this model. mteb stores results under ``revision``, a weights hash and the budget."""
        unknown: dict[str, Any] = dict.fromkeys(UNKNOWN)
        return ModelMeta(
            loader=None,
            name=f"mixlm/{Path(self.model.name).name}",
            revision=f"{weights_hash(self.model)}-{self.model.config.check_budget(self.tokens)}",
            languages=None,
            n_parameters=sum(weights.numel() for weights in self.model.parameters()),
            max_tokens=self.model.config.max_document_tokens,
            embed_dim=self.model.item_encoder.hidden_size,
            framework=["PyTorch"],
            use_instructions=False,
            model_type=["cross-encoder"],
            **unknown,
        )


def _query(row: Mapping[str, Any]) -> str:
    """A query as mteb gives it to all models: its text, and an instruction if the task has one.

    The instruction follows a text, but precedes a conversation (a list of strings, or of roles and contents).
    """
    text, instruction = row["text"], row.get("instruction")
    parts = [text, instruction]
    if isinstance(text, list):
        turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
        parts = [instruction, "; ".join(turns)]
    return " ".join(part for part in parts if part)


class _Documents:
    """Documents of an mteb corpus (rows of ``id``, ``text``, perhaps ``title``); can be iterated again and again."""

    def __init__(self, corpus: Any) -> None:
        self._corpus = corpus

    def __iter__(self) -> Iterator[Document]:
        for row in self._corpus:
            yield Document(str(row["id"]), row.get("text") or row.get("body") or "", row.get("title") or "")
