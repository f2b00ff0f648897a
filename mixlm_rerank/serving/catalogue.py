"""The models, token indexes and first-stage searchers of a server, by name; and how they are opened."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenStore, open_store
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.template import text_spans
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.scoring import SharedPrefixScorer
from mixlm_rerank.serving.schemas import MAX_DOCUMENTS, RequestFailed
from mixlm_rerank.types import Candidate, Missing

__all__ = ["Catalogue", "FirstStage", "open_catalogue"]

# Characters kept for each wanted token: a tokenizer reads its whole input, and texts can be megabytes long.
CHARACTERS = 1000
WARMED_UP = (1, 10, 100, 1000)  # numbers of candidates

_log = logging.getLogger(__name__)


class FirstStage:
    """BM25 by Pyserini over a Lucene index that stores its documents. Java is used from one thread."""

    def __init__(self, folder: Path) -> None:
        from mixlm_rerank.integrations.pyserini import LuceneTexts, open_searcher

        self._searcher = open_searcher(folder)
        self._texts = LuceneTexts(self._searcher)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lucene")
        weakref.finalize(self, self._searcher.close).atexit = False  # Java would keep the index mapped

    async def search(self, query: str, hits: int) -> list[Candidate]:
        """The best ``hits`` candidates."""
        return await asyncio.wrap_future(self._thread.submit(self._search, query, hits))

    async def texts(self, docids: Sequence[str]) -> Mapping[str, str]:
        """Texts by docid."""
        return await asyncio.wrap_future(self._thread.submit(self._texts, docids)) if docids else {}

    def _search(self, query: str, hits: int) -> list[Candidate]:
        return [Candidate(hit.docid, float(hit.score)) for hit in self._searcher.search(query, hits)]


class Catalogue:
    """Models and indexes by name; the first model is the default.

    Args:
        first_stages: searchers by the name of the token index that holds the same documents: for the page, and for
            texts that a request with ``verify_top`` lacks.
        judge: the ``verify_with`` of its rerankers.

    Attributes:
        stage: the ``stage`` of its rerankers, see :class:`Reranker`.

    Raises IndexMismatch if no model fits an index.
    """

    def __init__(
        self,
        models: Mapping[str, MixLM],
        indexes: Mapping[str, TokenStore],
        first_stages: Mapping[str, FirstStage] | None = None,
        judge: Any = None,
    ) -> None:
        self.models, self.indexes, self.first_stages = dict(models), dict(indexes), dict(first_stages or {})
        self._judge = judge
        self.stage: Callable[[str], AbstractContextManager[object]] = nullcontext
        self._model_of: dict[str, str] = {}  # index -> the model that built it
        for name, store in self.indexes.items():
            fitting = [model for model, own in self.models.items() if own.accepts(store.manifest.fingerprint)]
            if not fitting:
                store.manifest.check_model(next(iter(self.models.values())), str(store))
            self._model_of[name] = fitting[0]
        self._rerankers: dict[tuple[str, str | None, Missing, int, bool], Reranker] = {}

    def index_name(self, asked: str | None, *, by_docid: bool) -> str | None:
        """The index for a request. Raises RequestFailed for an unknown one, or where it must be named."""
        if asked is not None or not by_docid:
            return _known("index", asked, self.indexes)
        if len(self.indexes) != 1:
            raise RequestFailed(400, f"document_ids need an index: name one of {_listed(self.indexes)}")
        return next(iter(self.indexes))

    def model_name(self, asked: str | None, index: str | None) -> str:
        """The model for a request: the one that is asked for, the one that built the index, or the first.

        Names that clients send by habit (``rerank-v3.5``) are unknown models: 404.
        """
        default = next(iter(self.models)) if index is None else self._model_of[index]
        return _known("model", asked, self.models) or default

    def reranker(
        self, model: str, index: str | None, missing: Missing, tokens: int | None, *, in_full: bool = False
    ) -> Reranker:
        """A reranker with these settings. Raises IndexMismatch, RequestFailed for a budget that the model lacks.

        ``in_full``: it reads all of its candidates in full.
        """
        try:
            budget = self.models[model].config.check_budget(tokens)
        except InputError as error:
            raise RequestFailed(422, str(error)) from None
        asked = model, index, missing, budget, in_full
        if asked not in self._rerankers:
            store = None if index is None else self.indexes[index]
            verify: dict[str, Any] = {"verify_top": MAX_DOCUMENTS, "verify_with": self._judge} if in_full else {}
            made = Reranker(self.models[model], store, missing=missing, tokens=budget, **verify)
            made.stage = self.stage
            self._rerankers.setdefault(asked, made)  # another thread may have been first: a batch has one reranker
        return self._rerankers[asked]

    def cut(self, model: str, text: str | None, tokens: int | None = None) -> str | None:
        """The beginning of a text: at most ``tokens`` of the item encoder; ``None``: all that the model can read."""
        config = self.models[model].config
        longest = max(config.max_document_tokens, config.max_query_tokens)
        text = text and text[: CHARACTERS * min(tokens or longest, longest)]
        if not text or tokens is None:
            return text
        spans = text_spans(self.models[model].item_encoder.tokenizer, text)[:tokens]
        return text[: spans[-1][1]] if spans else text


def open_catalogue(
    models: Mapping[str, str],
    indexes: Mapping[str, str],
    lucene: Mapping[str, str],
    judge: Callable[[], Any] = lambda: None,
    device: str | None = None,
    dtype: str | None = None,
    offline: bool = False,
) -> Catalogue:
    """Open folders, URLs and hub ids by the name that they are served under.

    ``lucene``: folders, by the name of the token index that holds the same documents. ``judge`` opens the
    ``verify_with`` of rerankers, if there is one. For the other arguments see ``MixLM.from_pretrained``.

    Raises the errors of opening a model or an index, and IndexMismatch.
    """
    stores, read_by = {name: open_store(where) for name, where in indexes.items()}, judge()
    opened = {}
    for name, source in models.items():
        opened[name] = MixLM.from_pretrained(source, device=device, dtype=dtype, local_files_only=offline)
        if opened[name].device.type == "cuda":
            _log.warning("%s: compiling for the GPU, which takes a minute", name)
            _warm_up(opened[name])
    return Catalogue(opened, stores, {name: FirstStage(Path(folder)) for name, folder in lucene.items()}, read_by)


def _warm_up(model: MixLM) -> None:
    """Compile and record the forward passes of a few sizes; others are recorded when they first occur."""
    model.ranker.compile_packed()
    scorer, width = SharedPrefixScorer(model), model.item_encoder.token_size
    for budget in {1, model.config.tokens}:
        for count in WARMED_UP:
            scorer.score("a query of a few words", torch.zeros(count, budget, width))


def _known(kind: str, asked: str | None, held: Mapping[str, object]) -> str | None:
    """The name that is asked for. Raises RequestFailed for an unknown one."""
    if asked is not None and asked not in held:
        raise RequestFailed(404, f"no {kind} {asked!r} on this server; there are: {_listed(held)}")
    return asked


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"
