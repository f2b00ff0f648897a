"""``mixlm-rerank rerank``: rerank a run; ``search``: as ``python -m pyserini.search.lucene``, with reranking."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from ..data import Requests, read_requests, read_run, read_topics, write_requests, write_run
from ..data.runs import check_ids
from ..errors import InputError
from ..index import TokenIndex
from ..progress import progress_bar
from ..ranking import Weight, parsed_weight
from ..reranker import Reranker
from ..systems.collections import open_documents
from ..types import Candidate, Missing, ScoredDoc, Texts
from .options import (
    CORPUS_HELP,
    Device,
    Dtype,
    Model,
    Offline,
    Quiet,
    Threads,
    Tokens,
    check_output,
    load_any,
    open_judge,
    say,
)

__all__ = ["rerank", "search"]

VerifyTop = Annotated[int, Option(help="Read the full text of this many best candidates and reorder them.")]
VerifyWith = Annotated[
    str | None, Option(help="Cross-encoder (name or folder) that reads the best candidates; by default the model.")
]


def rerank(
    index: Annotated[Path, Option(help="The token index.")],
    output: Annotated[Path, Option(help="Where to write the reranked run (or requests).")],
    run: Annotated[Path | None, Option(help="First-stage run: TREC or MS MARCO format.")] = None,
    topics: Annotated[
        Path | None, Option(help="Queries of --run: TSV, BEIR queries.jsonl or folder, TREC topics.")
    ] = None,
    requests: Annotated[
        Path | None, Option(help="rank_llm request JSONL, instead of --run and --topics. The output is JSONL.")
    ] = None,
    model: Model = "default",
    depth: Annotated[int | None, Option(min=1, help="Rerank only this many candidates per query.")] = None,
    top_k: Annotated[int | None, Option(min=1, help="Write only this many documents per query.")] = None,
    tokens: Tokens = None,
    missing: Annotated[Missing, Option(help="What happens to candidates that are not in the index.")] = "last",
    texts: Annotated[str | None, Option(help=f"Texts for --missing encode and --verify-top: {CORPUS_HELP}")] = None,
    first_stage_weight: Annotated[
        str, Option(help="Weight of the first-stage score, 0 to 1; or 'rrf': reciprocal rank fusion.")
    ] = "0",
    verify_top: VerifyTop = 0,
    verify_with: VerifyWith = None,
    format: Annotated[Literal["trec", "msmarco"] | None, Option(help="Format of the output; trec by default.")] = None,
    tag: Annotated[str | None, Option(help="Last column of a TREC run; mixlm by default.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Rerank a first-stage run from embedding tokens."""
    check_output(output)
    if requests is not None and (format is not None or tag is not None):
        raise InputError("--format and --tag apply to runs; --requests writes request JSONL")
    tag = "mixlm" if tag is None else tag
    if len(tag.split()) != 1:
        raise InputError(f"--tag must be one word, not {tag!r}: the columns of a run are separated by blanks")
    asked = _asked(run, topics, requests)
    if requests is None and texts is None and (verify_top > 0 or missing == "encode"):
        raise InputError("--verify-top and --missing encode read documents' texts: give --texts")
    _check_verify(verify_top, verify_with)
    candidates = {qid: hits[:depth] for qid, hits in asked.candidates.items()}
    if top_k is not None and all(len(hits) <= top_k for hits in candidates.values()):
        warnings.warn(
            f"no query has more than {top_k:,} candidates, and --top-k keeps as many: only their order changes, not "
            "which documents are found. Give more candidates",
            stacklevel=1,
        )
    store = TokenIndex(index)  # before the models and the texts, which take longer
    judge = open_judge(verify_with, device, dtype, offline)
    reranker = Reranker(
        load_any(model, device, dtype, offline),
        store,
        missing=missing,
        texts=None if texts is None else _texts(texts, list(candidates.values())),
        tokens=tokens,
        first_stage_weight=_weight(first_stage_weight),
        verify_top=verify_top,
        verify_with=judge,
    )
    results = reranker.rerank_batch(asked.queries, candidates, top_k, progress=not quiet)
    _check_scored(results, run or requests or "", index)
    if requests is None:
        write_run(output, results, tag=tag, msmarco=format == "msmarco")
    else:
        write_requests(output, asked, results)
    lacking = sum(doc.missing for docs in results.values() for doc in docs)
    _say_written(output, results, f"; {lacking:,} were not in the index and are ranked last" if lacking else "")


def search(
    index: Annotated[Path, Option(help="The Lucene index, or the name of a prebuilt one of Pyserini.")],
    topics: Annotated[str, Option(help="A file of queries (TSV, BEIR, TREC), or a name that Pyserini knows.")],
    output: Annotated[Path, Option(help="The run to write.")],
    token_index: Annotated[Path, Option(help="The token index of the same documents.")],
    model: Model = "default",
    hits: Annotated[int, Option(min=1, help="Candidates per query; all are reranked.")] = 1000,
    output_format: Annotated[Literal["trec", "msmarco"], Option(help="Format of the run.")] = "trec",
    k1: Annotated[float, Option(min=0, help="BM25's k1.")] = 0.9,
    b: Annotated[float, Option(min=0, max=1, help="BM25's b.")] = 0.4,
    remove_query: Annotated[
        bool, Option("--remove-query", help="Leave out the document whose docid equals the qid.")
    ] = False,
    batch_size: Annotated[int, Option(min=1, help="Queries searched and reranked together.")] = 64,
    threads: Threads = 1,
    tokens: Tokens = None,
    missing: Annotated[Missing, Option(help="What happens to candidates that are not in the token index.")] = "last",
    first_stage_weight: Annotated[
        str, Option(help="Weight of BM25's score, 0 to 1; or 'rrf': reciprocal rank fusion.")
    ] = "0",
    verify_top: VerifyTop = 0,
    verify_with: VerifyWith = None,
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Search with BM25 (Pyserini) and rerank from embedding tokens in one step."""
    from mixlm_rerank.integrations.lucene import bm25_run
    from mixlm_rerank.integrations.pyserini import LuceneTexts, named_topics, open_searcher

    check_output(output)
    _check_verify(verify_top, verify_with)
    queries = read_topics(topics) if Path(topics).exists() else named_topics(topics)
    check_ids(dict.fromkeys(queries, ()))
    searcher = open_searcher(index, offline=offline)
    searcher.set_bm25(k1, b)
    store, judge = TokenIndex(token_index), open_judge(verify_with, device, dtype, offline)
    reranker = Reranker(
        load_any(model, device, dtype, offline),
        store,
        missing=missing,
        texts=LuceneTexts(searcher, threads) if missing == "encode" or verify_top else None,
        tokens=tokens,
        first_stage_weight=_weight(first_stage_weight),
        verify_top=verify_top,
        verify_with=judge,
    )
    ranked = {}
    qids = list(queries)
    with progress_bar(len(qids), "search and rerank", "queries", enabled=not quiet) as bar:
        for start in range(0, len(qids), batch_size):
            batch = {qid: queries[qid] for qid in qids[start : start + batch_size]}
            found = bm25_run(searcher, batch, hits=hits, threads=threads, drop_same_id=remove_query)
            check_ids(found)
            ranked.update(reranker.rerank_batch(batch, found))
            bar.update(len(batch))
    if not ranked:
        raise InputError(f"BM25 finds nothing in {index} for any query of {topics}: do they belong together?")
    _check_scored(ranked, index, token_index)
    write_run(output, ranked, tag="mixlm", msmarco=output_format == "msmarco")
    _say_written(output, ranked)


def _asked(run: Path | None, topics: Path | None, requests: Path | None) -> Requests:
    if requests is not None and run is None and topics is None:
        return read_requests(requests)
    if requests is None and run is not None and topics is not None:
        queries, candidates = read_topics(topics), read_run(run)
        without = [qid for qid in candidates if qid not in queries]
        if without:
            raise InputError(
                f"{topics} lacks {len(without)} of the {len(candidates)} queries of {run}, the first of them "
                f"{without[0]!r}: do they belong together?"
            )
        return Requests(queries, candidates, {})
    raise InputError("give either --run and --topics, or --requests")


def _texts(source: str, runs: Sequence[Sequence[Candidate]]) -> Texts:
    """Texts by docid. From a corpus file, only the candidates' texts are kept in memory."""
    if source.startswith("lucene:"):
        from mixlm_rerank.integrations.pyserini import LuceneTexts, open_searcher

        return LuceneTexts(open_searcher(source.removeprefix("lucene:")))
    wanted = {hit.docid for hits in runs for hit in hits}
    return {document.docid: document.content for document in open_documents(source) if document.docid in wanted}


def _check_scored(ranked: Mapping[str, Sequence[ScoredDoc]], candidates: str | Path, index: Path) -> None:
    """Raises InputError if no document was scored: the output would only repeat the first stage's order."""
    docs = [doc for found in ranked.values() for doc in found]
    if docs and all(doc.missing for doc in docs):
        raise InputError(
            f"none of the {len(docs):,} candidates of {candidates} was scored ({docs[0].docid!r}, for one): check that "
            f"{index} holds them, and that the queries have text"
        )


def _check_verify(verify_top: int, verify_with: str | None) -> None:
    if verify_with is not None and not verify_top:
        raise InputError("--verify-with goes with --verify-top: give the number of candidates that it is to read")


def _weight(text: str) -> Weight:
    """Parse a weight. Raises InputError if it is neither a number nor ``rrf``."""
    weight = parsed_weight(text)
    if weight is None:
        raise InputError(f"--first-stage-weight must be a number between 0 and 1, or rrf, not {text!r}")
    return weight


def _say_written(output: Path, ranked: Mapping[str, Sequence[ScoredDoc]], note: str = "") -> None:
    say(f"{output}: {sum(map(len, ranked.values())):,} documents of {len(ranked):,} queries{note}")
