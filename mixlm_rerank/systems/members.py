"""What a teacher is made of: rankers that are not trained here, each by a word, and their weighted sum.

Mistakes of different rankers differ: together they order documents better than the best of them. Scores are computed
once, so a student learns from many as fast as from one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from mixlm_rerank.errors import InputError
from mixlm_rerank.model.fingerprint import fingerprint
from mixlm_rerank.model.item_encoder import ItemEncoder
from mixlm_rerank.model.start import bi_encoder
from mixlm_rerank.systems.bm25_scores import BM25Scores
from mixlm_rerank.systems.loading import Loading, short_name
from mixlm_rerank.systems.teachers import CrossEncoderTeacher
from mixlm_rerank.systems.token_states import TokenStates

__all__ = ["DEFAULT_WEIGHTS", "MEMBERS", "Ensemble", "Member", "Members", "check_members", "read_members"]

MEMBERS = (
    "max-sim:NAME (late interaction over a bi-encoder's token states), bi-encoder:NAME (its cosine), "
    "cross-encoder:NAME, bm25 (as a share of the query's best)"
)
OF_MODELS = ("max-sim", "bi-encoder", "cross-encoder")
# Log-odds for a difference of 1: the range of each among BM25's first hundred, times its weight on development queries.
DEFAULT_WEIGHTS = {"max-sim": 27.0, "bm25": 1.5}

Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[NDArray[np.floating]]]


@dataclass(frozen=True)
class Member:
    """Attributes:
    name: short, for files and messages.
    score_batch: queries, and the documents of each -> scores, float [n] a query.
    made_by: hash of all that the scores depend on, besides queries and documents.
    """

    name: str
    score_batch: Score
    made_by: str


@dataclass(frozen=True)
class Ensemble:
    """The sum of members' scores times their weights."""

    members: Sequence[tuple[Member, float]]

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        """Log-odds of each query's documents, float32 [n] a query."""
        sums = [np.zeros(len(own), dtype=np.float32) for own in texts]
        for member, weight in self.members:
            for own, scores in zip(sums, member.score_batch(queries, texts), strict=True):
                own += weight * np.asarray(scores, dtype=np.float32)
        return sums


class Members:
    """The models of some members, each loaded once for all collections.

    Args:
        words: see ``MEMBERS``.
        own: what ``max-sim`` and ``bi-encoder`` without a name are of.

    Raises InputError for another word, or a model that cannot be loaded.
    """

    def __init__(self, words: Iterable[str], loading: Loading = Loading(), own: ItemEncoder | None = None) -> None:
        self._words = list(words)
        check_members(self._words, nameless=own is not None)
        self._encoders: dict[str, tuple[ItemEncoder, str]] = {}
        self._cross_encoders: dict[str, CrossEncoderTeacher] = {}
        for word in self._words:
            kind, _, name = word.partition(":")
            if kind == "cross-encoder":
                self._cross_encoders[name] = CrossEncoderTeacher(name, loading)
            elif kind != "bm25" and name not in self._encoders:
                encoder = own if own is not None and not name else _encoder(name, loading)
                self._encoders[name] = encoder, _identity(encoder)

    def of(self, documents: Iterable[str], corpus: str, folder: Path | None = None) -> list[Member]:
        """The members for one collection, in the order of their words.

        Args:
            documents: texts of the whole corpus, for BM25's statistics; read where they are needed.
            corpus: their hash.
            folder: of what is read meanwhile, see :class:`OnDisk`.
        """
        states = {name: TokenStates(encoder, folder) for name, (encoder, _) in self._encoders.items()}
        return [self._member(word, states, documents, corpus) for word in self._words]

    def _member(self, word: str, states: Mapping[str, TokenStates], documents: Iterable[str], corpus: str) -> Member:
        kind, _, name = word.partition(":")
        short = f"{kind}-{short_name(name)}" if name else kind
        if kind == "bm25":
            return Member(short, _LaterBM25(documents), corpus)
        if kind == "cross-encoder":
            teacher = self._cross_encoders[name]
            return Member(short, teacher.score_batch, teacher.fingerprint)
        score = states[name].max_sim if kind == "max-sim" else states[name].cosine
        return Member(short, score, self._encoders[name][1])


class _LaterBM25:
    """Made when it is first asked: scores that are stored need none."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = documents
        self._scores: BM25Scores | None = None

    def __call__(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float32]]:
        if self._scores is None:
            self._scores = BM25Scores(self._documents)
        return self._scores(queries, texts)


def check_members(words: Iterable[str], *, nameless: bool = False) -> None:
    """Raises InputError for a word that is no member. ``nameless``: whether models may go without a name."""
    for word in words:
        kind, _, name = word.partition(":")
        alone = word == "bm25" or (nameless and word in ("max-sim", "bi-encoder"))
        if not alone and (kind not in OF_MODELS or not name):
            raise InputError(f"no such member of a teacher: {word!r}. There are: {MEMBERS}")


def read_members(path: Path) -> dict[str, float]:
    """member -> weight, out of a YAML file as `eval teacher` writes it. Raises InputError if it is none."""
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
    """With what queries are read by: the fingerprint is that of documents."""
    config = encoder.config
    return f"{fingerprint(encoder, config)} {config.query_prompt!r} {config.max_query_tokens}"


def _encoder(name: str, loading: Loading) -> ItemEncoder:
    return bi_encoder(name, hub={"local_files_only": loading.offline}).to(loading.device_name())
