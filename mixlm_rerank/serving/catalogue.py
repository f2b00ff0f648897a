"""The models and indexes that a server has, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from tokenizers import Tokenizer

from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenStore
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.template import without_lone_surrogates
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.serving.failures import RequestFailed
from mixlm_rerank.serving.search import FirstStage
from mixlm_rerank.types import Missing

__all__ = ["Catalogue"]

# Characters for each token that is wanted: a tokenizer reads all that it is given, and texts can be megabytes long.
CHARACTERS = 1000


class Catalogue:
    """Models and indexes by name; the first model is the default.

    Args:
        first_stages: by the name of the token index that holds the same documents; for the page.

    Attributes:
        stage: that of its rerankers, see :class:`Reranker`.

    Raises IndexMismatch if no model fits an index.
    """

    def __init__(
        self,
        models: Mapping[str, MixLM],
        indexes: Mapping[str, TokenStore],
        first_stages: Mapping[str, FirstStage] | None = None,
    ) -> None:
        self.models = dict(models)
        self.indexes = dict(indexes)
        self.first_stages = dict(first_stages or {})
        self.stage: Callable[[str], AbstractContextManager[object]] = nullcontext
        self._model_of: dict[str, str] = {}  # index -> the model that built it
        for name, store in self.indexes.items():
            fitting = [model for model, own in self.models.items() if own.accepts(store.manifest.fingerprint)]
            if not fitting:
                store.manifest.check_model(next(iter(self.models.values())), str(store))
            self._model_of[name] = fitting[0]
        self._rerankers: dict[tuple[str, str | None, Missing, int], Reranker] = {}
        self._cutters = {name: _cutter(model) for name, model in self.models.items()}

    def index_name(self, asked: str | None, *, by_docid: bool) -> str | None:
        """The index for a request. Raises RequestFailed for an unknown one, or where it must be named."""
        if asked is not None:
            if asked not in self.indexes:
                raise RequestFailed(404, f"no index {asked!r} on this server; there are: {_listed(self.indexes)}")
            return asked
        if not by_docid:
            return None
        if len(self.indexes) != 1:
            raise RequestFailed(400, f"document_ids need an index: name one of {_listed(self.indexes)}")
        return next(iter(self.indexes))

    def model_name(self, asked: str | None, index: str | None) -> str:
        """The model for a request: the one that is asked for, the one that built the index, or the first.

        Names that clients put there by habit (``rerank-v3.5``) are unknown models: 404.
        """
        if asked is not None:
            if asked not in self.models:
                raise RequestFailed(404, f"no model {asked!r} on this server; there are: {_listed(self.models)}")
            return asked
        if index is not None:
            return self._model_of[index]
        return next(iter(self.models))

    def reranker(self, model: str, index: str | None, missing: Missing, tokens: int | None) -> Reranker:
        """Raises IndexMismatch, RequestFailed for a budget that the model does not have."""
        try:
            budget = self.models[model].config.check_budget(tokens)
        except InputError as error:
            raise RequestFailed(422, str(error)) from None
        asked = model, index, missing, budget
        if asked not in self._rerankers:
            store = None if index is None else self.indexes[index]
            made = Reranker(self.models[model], store, missing=missing, tokens=budget)
            made.stage = self.stage
            self._rerankers.setdefault(asked, made)  # another thread may have been faster: one batch has one reranker
        return self._rerankers[asked]

    def cut(self, model: str, text: str | None, tokens: int | None = None) -> str | None:
        """The beginning of a text: at most ``tokens`` of the item encoder; ``None``: as many as the model can read."""
        config = self.models[model].config
        longest = max(config.max_document_tokens, config.max_query_tokens)
        text = text and text[: CHARACTERS * min(tokens or longest, longest)]
        if not text or tokens is None:
            return text
        spans = self._cutters[model].encode(without_lone_surrogates(text), add_special_tokens=False).offsets[:tokens]
        return text[: spans[-1][1]] if spans else text


def _cutter(model: MixLM) -> Tokenizer:
    """A copy of the item encoder's tokenizer that only reads, and for which nobody waits."""
    copy = Tokenizer.from_str(model.item_encoder.tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(map(repr, names)) or "none"
