"""Teachers: rankers that are not trained here. A teacher is the weighted sum of its members, each named by a word.

Different rankers make different mistakes: together they order documents better than the best of them. Scores are
computed once, so a student learns from many members as fast as from one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.model.fingerprint import fingerprint
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.model.running import parameter_dtype, weights_to
from mixlm_rerank.model.start import bi_encoder
from mixlm_rerank.systems.loading import Loading, short_name
from mixlm_rerank.systems.sentence_transformers import CrossEncoder
from mixlm_rerank.systems.token_states import TokenStates

__all__ = ["DEFAULT_WEIGHTS", "MEMBERS", "BM25Scores", "Member", "Members", "check_members", "read_members"]
__all__ += ["weighted_sum"]

MEMBERS = (
    "max-sim:NAME (late interaction over a bi-encoder's token states), bi-encoder:NAME (its cosine), "
    "cross-encoder:NAME, bm25 (as a share of the query's best)"
)
OF_MODELS = ("max-sim", "bi-encoder", "cross-encoder")
# Log-odds per unit of score: each member's range in BM25's first hundred, times its weight on development queries.
DEFAULT_WEIGHTS = {"max-sim": 27.0, "bm25": 1.5}

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[NDArray[np.floating]]]


class BM25Scores:
    """BM25 (k1 .9, b .4) of any query and document of a corpus, as a share of the query's best in that corpus."""

    def __init__(self, documents: Iterable[str]) -> None:
        with optional_import("this teacher needs bm25s", "train"):
            self._library: Any = importlib.import_module("bm25s")
        texts = list(dict.fromkeys(documents))
        if not texts:
            raise InputError("the corpus holds no documents")
        self._rows = {text: row for row, text in enumerate(texts)}
        self._index = self._library.BM25(k1=0.9, b=0.4)
        self._index.index(self._library.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def __call__(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Scores of each query's documents, float32 [n] in [0, 1] a query; 0 for a query without any word of it."""
        lacking = next((text for own in texts for text in own if text not in self._rows), None)
        if lacking is not None:
            raise InputError(f"the document {lacking[:60]!r} ... is not in the corpus of BM25's statistics")
        words = self._library.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
        return [self._shares(own, documents) for own, documents in zip(words, texts, strict=True)]

    def _shares(self, words: list[str], documents: Sequence[str]) -> NDArray[np.float32]:
        if not words:
            return np.zeros(len(documents), dtype=np.float32)
        whole = np.asarray(self._index.get_scores(words), dtype=np.float32)
        shares: NDArray[np.float32] = whole[[self._rows[text] for text in documents]] / max(float(whole.max()), 1e-6)
        return shares


@dataclass(frozen=True)
class Member:
    """One ranker of a teacher, for one collection."""

    name: str  # short, for files and messages
    score_batch: Score  # queries, and the documents of each -> scores, float [n] a query
    fingerprint: str  # hash of everything that the scores depend on, except queries and documents


def weighted_sum(
    members: Iterable[Member], weights: Iterable[float], queries: Sequence[str], texts: Sequence[Sequence[str]]
) -> list[NDArray[np.float32]]:
    """Weighted sum of the members' scores: log-odds of each query's documents, float32 [n] a query."""
    sums = [np.zeros(len(own), dtype=np.float32) for own in texts]
    for member, weight in zip(members, weights, strict=True):
        for own, scores in zip(sums, member.score_batch(queries, texts), strict=True):
            own += weight * np.asarray(scores, dtype=np.float32)
    return sums


class Members:
    """The models of a teacher's members, each loaded once for all collections.

    Args:
        words: see ``MEMBERS``.
        loading: its dtype is that of all models; by default bi-encoders are in float32.
        own: item encoder of ``max-sim`` and ``bi-encoder`` without a name; its weights are cast to that dtype.

    Raises InputError for an unknown word, or a model that cannot be loaded.
    """

    def __init__(self, words: Iterable[str], loading: Loading = Loading(), own: ItemEncoder | None = None) -> None:
        self._words = list(words)
        check_members(self._words, nameless=own is not None)
        self._encoders: dict[str, ItemEncoder] = {} if own is None else {"": own}
        self._cross_encoders: dict[str, CrossEncoder] = {}
        for word in self._words:
            kind, _, name = word.partition(":")
            if kind == "cross-encoder":
                self._cross_encoders[name] = CrossEncoder(name, loading=loading)
            elif kind != "bm25" and name not in self._encoders:
                hub = {"local_files_only": loading.offline}
                self._encoders[name] = bi_encoder(name, hub=hub).to(loading.device_name())
        for encoder in self._encoders.values():
            weights_to(encoder, parameter_dtype(None if loading.dtype == "int8" else loading.dtype) or torch.float32)
        self._identities = {name: _identity(encoder) for name, encoder in self._encoders.items()}

    def of(self, documents: Iterable[str], corpus: str, folder: Path | None = None) -> list[Member]:
        """The members for one collection, in the order of their words.

        Args:
            documents: texts of the whole corpus, for BM25's statistics; read only if needed.
            corpus: hash of these documents.
            folder: where token states are kept, see :class:`OnDisk`.
        """
        states = {name: TokenStates(encoder, folder) for name, encoder in self._encoders.items()}
        lexical = cache(lambda: BM25Scores(documents))  # built on first use: stored scores do not need it
        members = []
        for word in self._words:
            kind, _, name = word.partition(":")
            score: Score
            if kind == "bm25":
                score, identity = lambda queries, texts: lexical()(queries, texts), corpus
            elif kind == "cross-encoder":
                score, identity = self._cross_encoders[name].score_batch, self._cross_encoders[name].fingerprint
            else:
                score = states[name].max_sim if kind == "max-sim" else states[name].cosine
                identity = self._identities[name]
            members.append(Member(f"{kind}-{short_name(name)}" if name else kind, score, identity))
        return members


def check_members(words: Iterable[str], *, nameless: bool = False) -> None:
    """Raises InputError for an unknown word. ``nameless``: whether ``max-sim`` and ``bi-encoder`` may lack a name."""
    for word in words:
        kind, _, name = word.partition(":")
        alone = word == "bm25" or (nameless and word in ("max-sim", "bi-encoder"))
        if not alone and (kind not in OF_MODELS or not name):
            raise InputError(f"no such member of a teacher: {word!r}. There are: {MEMBERS}")


def read_members(path: Path) -> dict[str, float]:
    """member -> weight, from a YAML file as `eval teacher` writes it. Raises InputError for any other file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))["members"]
        weights = {str(word): float(weight) for word, weight in values.items()}
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not hold members and their weights (members: {{WORD: 1.0}}): {reason}") from None
    check_members(weights)
    return weights


def _identity(encoder: ItemEncoder) -> str:
    """The fingerprint, which covers how documents are read, and the settings by which queries are read."""
    config = encoder.config
    dtype = next(encoder.parameters()).dtype
    rounded = "" if dtype == torch.float32 else f" {dtype}"  # the fingerprint is that of the same weights in float32
    return f"{fingerprint(encoder, config)} {config.query_prompt!r} {config.max_query_tokens}{rounded}"
