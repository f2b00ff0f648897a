"""The reranker: candidates in, ranked documents out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arguments import as_candidates, check_count, check_kind, check_list_of_strings, check_model, is_nothing
from .documents import rank_documents
from .errors import InputError
from .index import TokenStore, open_store
from .model.template import readable, without_lone_surrogates
from .onnx import OnnxMixLM
from .progress import progress_bar
from .ranking import Weight, best_passages, check_weight, interpolated, ranked, verified
from .texts import CandidateTokens, NoIndex, Stage
from .types import Candidate, Missing, Model, ScoredDoc, Texts

if TYPE_CHECKING:
    from .scoring import Scorer

__all__ = ["Reranker"]

# Candidates whose tokens are held in memory at once: 4,096 x 4 tokens x 384 dimensions are 25 MB.
CANDIDATES_AT_ONCE = 4096


class Reranker:
    """Scores first-stage candidates with a MixLM over a token index.

    Args:
        model: the MixLM, or an exported one (``OnnxMixLM``).
        index: a token index built by this model's item encoder, or its folder or Redis URL. ``None``: no index; every
            document's text is encoded on the fly (the latest are cached: 64 MB for all rerankers of a process). With an
            index of passages a document gets the score of its best passage (MaxP), and texts are split into passages,
            too.
        missing: what happens to candidates that are not in the index. ``"error"``: raise MissingDocuments. ``"last"``
            (the default with an index): keep them below all others, in first-stage order. ``"encode"`` (the default
            without an index): encode their text now (a candidate's own ``text``, or from ``texts``); a text without
            readable tokens comes last. A call that scores no candidate warns.
        texts: docid -> text, for ``missing="encode"`` and ``verify_top``.
        tokens: the token budget, at most the model's; fewer is faster. ``None``: all.
        first_stage_weight: a in ``(1 - a) * MixLM + a * first stage``, both scaled to [0, 1] within the query. 0: only
            MixLM, and scores are log-odds. Fit it on development queries. ``"rrf"``: reciprocal rank fusion.
        verify_top: read the full text of the best m candidates and reorder them (slow). A ``first_stage_weight`` also
            applies to these scores, scaled within these m.
        verify_with: the model that reads them (with an index of passages, their passages): a sentence-transformers
            CrossEncoder, whose raw scores replace this model's log-odds. ``None``: this model in full-text mode. Even
            in that mode a model that ``distill`` trained differs from its teacher: give the teacher here.
        score_threshold: return only documents with at least these log-odds. ``mixlm-rerank calibrate`` makes a model
            whose log-odds can be read as probabilities, and reports whether any threshold separates documents.
        scorer: how to score; by default the shared-prefix scorer.

    Attributes:
        stage: a function from the name of a stage (``"index"``, ``"encode"``, ``"score"``, ``"verify"``) to a context
            manager that is entered around it. Assign ``tracer.start_as_current_span``, for example, to trace stages.

    Raises:
        IndexMismatch: another item encoder built the index.
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        model: Model,
        index: TokenStore | str | Path | None = None,
        *,
        missing: Missing | None = None,
        texts: Texts | None = None,
        tokens: int | None = None,
        first_stage_weight: Weight = 0.0,
        verify_top: int = 0,
        verify_with: Any = None,
        score_threshold: float | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        check_model(model)
        missing = missing or ("encode" if index is None else "last")
        index = NoIndex(model) if index is None else open_store(index)  # an empty index is one too
        if missing not in ("error", "encode", "last"):
            raise InputError(f'missing must be "error", "encode" or "last", not {missing!r}')
        if missing == "encode" and model.config.vectors:
            raise InputError(
                "this model encodes no texts, its documents are vectors: give an index that holds them, docids, and "
                'missing="last" or "error"'
            )
        check_weight(first_stage_weight)
        if not (texts is None or callable(texts) or isinstance(texts, Mapping)):
            raise InputError(f"texts must be a mapping docid -> text or a function, not {texts!r:.80}")
        check_count("verify_top", verify_top, least=0)
        if verify_with is not None and not verify_top:
            raise InputError("verify_with goes with verify_top: give the number of candidates that it is to read")
        if verify_with is not None and not callable(getattr(verify_with, "predict", None)):
            raise InputError(f"verify_with must be a CrossEncoder, not {verify_with!r:.80}")
        if score_threshold is not None and (first_stage_weight or verify_with is not None):
            raise InputError("score_threshold is in log-odds: leave it out with first_stage_weight or verify_with")
        index.manifest.check_model(model, str(index))
        self.model: Any = model  # a MixLM for the server and others, which load no exported models
        self.index = index
        self.missing = missing
        self.texts = texts
        self.tokens = model.config.check_budget(tokens)
        self.first_stage_weight = first_stage_weight
        self.verify_top = verify_top
        self.verify_with = verify_with
        self.score_threshold = score_threshold
        self.stage: Stage = nullcontext
        self._scorer: Scorer | OnnxMixLM
        if isinstance(model, OnnxMixLM):
            if verify_top and verify_with is None:
                raise InputError("an exported model reads no full texts: give verify_with, or a MixLM")
            self._scorer = scorer or model
        else:
            from .scoring import FullTextScorer, SharedPrefixScorer

            self._scorer, self._full_text = scorer or SharedPrefixScorer(model), FullTextScorer(model)
        self._reading = CandidateTokens(model, index)

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[ScoredDoc]:
        """Rank texts without docids. Each text is encoded now, unless it is among the latest ones.

        Returns:
            Ranked documents; ``docid`` is the position in ``documents``: "0", "1" ...

        Raises:
            InputError: ``documents`` is not a list of strings, or ``missing`` is not ``"encode"``.
        """
        check_list_of_strings("documents", documents)
        check_count("top_k", top_k)
        return [
            ScoredDoc(str(place), doc.score, rank, float(-place), doc.missing, documents[place])
            for rank, (place, doc) in enumerate(rank_documents(self, query, documents)[:top_k], 1)
        ]

    def rerank(self, query: str, hits: Iterable[Any], top_k: int | None = None) -> list[ScoredDoc]:
        """Rank one query's candidates; ties keep their first-stage order.

        Args:
            query: the query text. An empty query keeps the first stage's order, with a warning; no document is scored.
            hits: first-stage hits, best first: Candidates, pairs (docid, score), docids or Pyserini's hits. They are
                not changed.
            top_k: how many to return; ``None``: all.

        Raises:
            InputError: malformed or duplicate hits.
            MissingDocuments: a document is not in the index (``missing="error"``), or has no text
                (``missing="encode"``).
        """
        return self.rerank_batch({"": query}, {"": hits}, top_k)[""]

    def rerank_batch(
        self,
        queries: Mapping[str, str],
        hits: Mapping[str, Iterable[Any]],
        top_k: int | None = None,
        *,
        progress: bool = False,
    ) -> dict[str, list[ScoredDoc]]:
        """Rank the candidates of many queries, several queries per forward pass. Results equal those of ``rerank``.

        ``queries`` and ``hits`` are keyed by qid; the result has the keys of ``hits``, in its order.
        """
        check_count("top_k", top_k)
        for name, given in (("queries", queries), ("hits", hits)):
            check_kind(name, given, Mapping, "a mapping by qid")
        jobs = [_Job(qid, self._text(queries, qid), as_candidates(found)) for qid, found in hits.items()]
        results: dict[str, list[ScoredDoc]] = {}
        with progress_bar(len(jobs), "rerank", "queries", enabled=progress) as bar:
            for group in _groups(jobs):
                self._score([job for job in group if job.query])
                for job in group:
                    results[job.qid] = self._rank(job)[:top_k]
                    job.tokens, job.titles = np.empty(0, dtype=np.float32), None  # hold those of one group only
                bar.update(len(group))
        self._warn(jobs)
        return results

    def _warn(self, jobs: Sequence[_Job]) -> None:
        """Warn if a result is not really a ranking. (Python keeps the text of each warning, so few are given.)"""
        jobs = [job for job in jobs if job.candidates]
        empty = [job.qid for job in jobs if not job.query]
        if empty:
            named = ", ".join(repr(qid) for qid in empty[:5] if qid) + " ..." * (len(empty) > 5)
            warnings.warn(f"an empty query keeps the first stage's order{named and f': {named}'}", stacklevel=3)
        if len(jobs) > len(empty) and not any(job.found.any() for job in jobs):
            lack = "their texts are empty" if self.missing == "encode" else f"{self.index} holds none of them"
            warnings.warn(f"none of the candidates was scored: {lack}", stacklevel=3)

    def unread(self, candidates: Sequence[Candidate]) -> list[int]:
        """Places of candidates whose own text must be encoded: neither in the index nor among the latest texts."""
        return self._reading.unread(candidates) if self.missing == "encode" else []

    def _text(self, queries: Mapping[str, str], qid: str) -> str:
        """The query's text; "" if there is nothing to read in it."""
        if qid not in queries:
            raise InputError(f"there are hits for query {qid!r}, but no query of that qid")
        query = queries[qid]
        if is_nothing(query):
            return ""
        if not isinstance(query, str):
            raise InputError(f"the ranker reads the query's text: give a string, not a {type(query).__name__}")
        return query if readable(self.model.ranker.tokenizer, [query])[0] else ""

    def _score(self, jobs: Sequence[_Job]) -> None:
        """Fill in, for every job: passages per candidate, log-odds, and the tokens of the best passages."""
        candidates = [hit for job in jobs for hit in job.candidates]
        read = self._reading.fetch(candidates, self.missing, self.texts, self.tokens, self.stage)
        row = column = 0
        for job in jobs:
            job.counts = read.counts[row : row + len(job.candidates)]
            count = int(job.counts.sum())
            job.tokens = read.tokens[column : column + count]
            job.titles = None if read.titles is None else read.titles[column : column + count]
            row, column = row + len(job.candidates), column + count
        scorable = [job for job in jobs if len(job.tokens)]
        if scorable:
            with self.stage("score"):
                scores = self._log_odds(scorable)
            for job, job.scores in zip(scorable, scores, strict=True):
                if not np.isfinite(job.scores).all():
                    raise InputError(
                        f"the ranker gave a score that is not finite for the query {job.query!r}: use float32, or "
                        "check the weights"
                    )
                if self.index.manifest.passages:
                    best = best_passages(job.scores, job.counts[job.found])
                    job.scores, job.tokens = job.scores[best], job.tokens[best]

    def _log_odds(self, jobs: Sequence[_Job]) -> list[NDArray[np.float64]]:
        """Log-odds of each job's candidates, [n] per job. Scorers in PyTorch take tensors."""
        queries, tokens = [job.query for job in jobs], [job.tokens for job in jobs]
        found: Sequence[Any]
        if isinstance(self._scorer, OnnxMixLM):
            found = self._scorer.score_batch(queries, tokens)
        else:
            from torch import from_numpy

            titles = [from_numpy(job.titles) for job in jobs if job.titles is not None]  # all jobs have them, or none
            given = [titles] if titles else []  # a custom scorer need not accept titles
            found = self._scorer.score_batch(queries, [from_numpy(own) for own in tokens], *given)
        return [np.asarray(scores, dtype=np.float64) for scores in found]

    def _rank(self, job: _Job) -> list[ScoredDoc]:
        scores = job.scores
        if self.first_stage_weight:
            first = np.array([hit.score for hit in job.candidates])[job.found]
            scores = interpolated(scores, first, self.first_stage_weight)
        docs = ranked(job.candidates, job.found, scores)
        docs = self._verify(job, docs) if self.verify_top else docs
        least = self.score_threshold
        return docs if least is None else [doc for doc in docs if doc.score >= least and not doc.missing]

    def _verify(self, job: _Job, docs: list[ScoredDoc]) -> list[ScoredDoc]:
        """Full-text scores for the best ``verify_top``."""
        best = [doc for doc in docs[: self.verify_top] if not doc.missing]
        if not best:
            return docs
        scored = list(compress(job.candidates, job.found))
        row_of = {(hit.docid, hit.text): row for row, hit in enumerate(scored)}
        rows = [row_of[doc.docid, doc.text] for doc in best]
        passages = self._reading.full_texts([scored[row] for row in rows], self.texts)
        counts = np.array([len(own) for own in passages])
        tokens = job.tokens[np.repeat(rows, counts)]
        with self.stage("verify"):
            scores = self._full_scores(job.query, sum(passages, []), tokens)
        scores = scores[best_passages(scores, counts)]
        if self.first_stage_weight:
            first = np.array([scored[row].score for row in rows])
            scores = interpolated(scores, first, self.first_stage_weight)
        return verified(docs, dict(zip(best, scores.tolist(), strict=True)))

    def _full_scores(self, query: str, texts: Sequence[str], tokens: NDArray[np.float32]) -> NDArray[np.float64]:
        """Full-text scores of texts for a query; the residual needs their tokens. [n], [n, k, d] -> [n]."""
        from torch import from_numpy, nn

        if self.verify_with is None:
            return self._full_text.score(query, texts, from_numpy(tokens)).numpy().astype(np.float64)
        pairs = [(without_lone_surrogates(query), without_lone_surrogates(text)) for text in texts]
        options = {"activation_fn": nn.Identity(), "show_progress_bar": False, "convert_to_numpy": True}
        scores = np.asarray(self.verify_with.predict(pairs, **options), dtype=np.float64)
        if scores.shape != (len(texts),) or not np.isfinite(scores).all():
            raise InputError(f"verify_with must give one finite score a text: for the query {query!r} it does not")
        return scores


@dataclass
class _Job:
    """One query on its way through the reranker."""

    qid: str
    query: str
    candidates: list[Candidate]
    counts: NDArray[np.int64] = field(init=False)
    tokens: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    titles: NDArray[np.int32] | None = None
    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.candidates), dtype=np.int64)

    @property
    def found(self) -> NDArray[np.bool_]:
        return self.counts > 0


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Groups of consecutive queries with about ``CANDIDATES_AT_ONCE`` candidates together."""
    group: list[_Job] = []
    held = 0
    for job in jobs:
        if group and held + len(job.candidates) > CANDIDATES_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(job)
        held += len(job.candidates)
    if group:
        yield group
