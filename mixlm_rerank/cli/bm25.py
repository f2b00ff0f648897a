"""``mixlm-rerank bm25``: a first stage by Pyserini."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ..data import read_qrels, read_topics, write_run
from ..data.runs import check_ids
from ..errors import InputError
from ..ranking import unranked
from ..systems.collections import open_documents
from .options import CORPUS_HELP, Depth, Quiet, Threads, check_output, say

__all__ = ["app"]

app = typer.Typer(help="BM25 as first stage (Pyserini).", no_args_is_help=True)


@app.command("index")
def bm25_index(
    corpus: Annotated[str, Argument(help=CORPUS_HELP)],
    folder: Annotated[Path, Argument(help="The Lucene index; must not exist yet.")],
    quiet: Quiet = False,
) -> None:
    """Build a Lucene index: one field with title and text, documents stored. Documents without text are left out."""
    from mixlm_rerank.integrations.lucene import build_lucene_index

    count = build_lucene_index(open_documents(corpus), folder, progress=not quiet)
    say(f"{folder}: {count:,} documents")


@app.command("search")
def bm25_search(
    folder: Annotated[Path, Argument(help="The Lucene index.")],
    topics: Annotated[Path, Option(help="Queries: TSV, BEIR queries.jsonl or folder, TREC topics.")],
    output: Annotated[Path, Option(help="The TREC run to write.")],
    hits: Depth = 100,
    qrels: Annotated[Path | None, Option(help="Search only queries that are judged in this file.")] = None,
    drop_same_id: Annotated[
        bool, Option("--drop-same-id", help="Leave out the document whose docid equals the qid (ArguAna).")
    ] = False,
    threads: Threads = 1,
) -> None:
    """Write the BM25 candidates (k1 .9, b .4) of every query as a TREC run."""
    from mixlm_rerank.integrations.lucene import bm25_run, open_searcher

    check_output(output)
    queries = read_topics(topics)
    if qrels is not None:
        judged = read_qrels(qrels)
        queries = {qid: text for qid, text in queries.items() if qid in judged}
        if not queries:
            raise InputError(f"no query of {topics} is judged in {qrels}: do they belong together?")
    check_ids(dict.fromkeys(queries, ()))
    run = bm25_run(open_searcher(folder), queries, hits=hits, threads=threads, drop_same_id=drop_same_id)
    write_run(output, {qid: unranked(found) for qid, found in run.items()}, tag="bm25")
    say(f"{output}: {sum(map(len, run.values())):,} candidates of {len(run):,} queries")
