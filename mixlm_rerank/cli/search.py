"""``mixlm-rerank search``: ``python -m pyserini.search.lucene`` with the same flags, and reranked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..data import read_topics, write_run
from ..data.runs import check_ids
from ..errors import InputError
from ..index import TokenIndex
from ..progress import progress_bar
from ..reranker import Reranker
from ..types import Missing
from .options import Device, Dtype, Model, Offline, Quiet, Tokens, asked_weight, check_output, check_scored, load_any

__all__ = ["search"]


def search(
    index: Annotated[Path, typer.Option(help="The Lucene index.")],
    topics: Annotated[str, typer.Option(help="A file of queries (TSV, BEIR, TREC), or a name that Pyserini knows.")],
    output: Annotated[Path, typer.Option(help="The run to write.")],
    token_index: Annotated[Path, typer.Option(help="The token index of the same documents.")],
    model: Model = "default",
    hits: Annotated[int, typer.Option(min=1, help="Candidates per query; all are reranked.")] = 1000,
    output_format: Annotated[Literal["trec", "msmarco"], typer.Option(help="Format of the run.")] = "trec",
    k1: Annotated[float, typer.Option(min=0, help="BM25's k1.")] = 0.9,
    b: Annotated[float, typer.Option(min=0, max=1, help="BM25's b.")] = 0.4,
    remove_query: Annotated[
        bool, typer.Option("--remove-query", help="Leave out the document whose docid equals the qid.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries searched and reranked together.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="Queries searched in parallel.")] = 1,
    tokens: Tokens = None,
    missing: Annotated[
        Missing, typer.Option(help="What happens to candidates that are not in the token index.")
    ] = "last",
    first_stage_weight: Annotated[
        str, typer.Option(help="Weight of BM25's score, 0 to 1; or 'rrf': reciprocal rank fusion.")
    ] = "0",
    device: Device = None,
    dtype: Dtype = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Search with BM25 (Pyserini) and rerank from embedding tokens in one step."""
    from mixlm_rerank.integrations.lucene import bm25_run
    from mixlm_rerank.integrations.pyserini import LuceneTexts, named_topics, open_searcher

    check_output(output)
    queries = read_topics(topics) if Path(topics).exists() else named_topics(topics)
    check_ids(dict.fromkeys(queries, ()))
    searcher = open_searcher(index)
    searcher.set_bm25(k1, b)
    reranker = Reranker(
        load_any(model, device, dtype, offline),
        TokenIndex(token_index),
        missing=missing,
        texts=LuceneTexts(searcher, threads) if missing == "encode" else None,
        tokens=tokens,
        first_stage_weight=asked_weight(first_stage_weight),
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
    check_scored(ranked, index, token_index)
    write_run(output, ranked, tag="mixlm", msmarco=output_format == "msmarco")
    typer.echo(f"{output}: {sum(map(len, ranked.values())):,} documents of {len(ranked):,} queries", err=True)
