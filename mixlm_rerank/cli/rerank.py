"""``mixlm-rerank rerank``: a run file in, a run file out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..data import Requests, read_requests, read_run, read_topics, write_requests, write_run
from ..errors import InputError
from ..index import TokenIndex
from ..reranker import Reranker
from ..types import Candidate, Missing, Texts
from .options import (
    CORPUS_HELP,
    Device,
    Dtype,
    Model,
    Offline,
    Quiet,
    Tokens,
    asked_weight,
    check_output,
    check_scored,
    load_any,
    open_documents,
)

__all__ = ["rerank"]


def rerank(
    index: Annotated[Path, typer.Option(help="The token index.")],
    output: Annotated[Path, typer.Option(help="Where to write the reranked run (or requests).")],
    run: Annotated[Path | None, typer.Option(help="First-stage run: TREC or MS MARCO format.")] = None,
    topics: Annotated[
        Path | None, typer.Option(help="Queries of --run: TSV, BEIR queries.jsonl or folder, TREC topics.")
    ] = None,
    requests: Annotated[
        Path | None, typer.Option(help="rank_llm request JSONL, instead of --run and --topics. The output is JSONL.")
    ] = None,
    model: Model = "default",
    depth: Annotated[int | None, typer.Option(min=1, help="Rerank only this many candidates per query.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Write only this many documents per query.")] = None,
    tokens: Tokens = None,
    missing: Annotated[Missing, typer.Option(help="What happens to candidates that are not in the index.")] = "last",
    texts: Annotated[
        str | None, typer.Option(help=f"Texts for --missing encode and --verify-top: {CORPUS_HELP}")
    ] = None,
    first_stage_weight: Annotated[
        str, typer.Option(help="Weight of the first-stage score, 0 to 1; or 'rrf': reciprocal rank fusion.")
    ] = "0",
    verify_top: Annotated[
        int, typer.Option(help="Read the full text of this many best candidates and reorder them.")
    ] = 0,
    format: Annotated[
        Literal["trec", "msmarco"] | None, typer.Option(help="Format of the output; trec by default.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Last column of a TREC run; mixlm by default.")] = None,
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
    candidates = {qid: hits[:depth] for qid, hits in asked.candidates.items()}
    if top_k is not None and all(len(hits) <= top_k for hits in candidates.values()):
        warnings.warn(
            f"no query has more than {top_k:,} candidates, and --top-k keeps as many: only their order changes, not "
            "which documents are found. Give more candidates",
            stacklevel=1,
        )
    store = TokenIndex(index)  # before the model, which takes longer
    reranker = Reranker(
        load_any(model, device, dtype, offline),
        store,
        missing=missing,
        texts=None if texts is None else _texts(texts, list(candidates.values())),
        tokens=tokens,
        first_stage_weight=asked_weight(first_stage_weight),
        verify_top=verify_top,
    )
    results = reranker.rerank_batch(asked.queries, candidates, top_k, progress=not quiet)
    check_scored(results, run or requests or "", index)
    if requests is None:
        write_run(output, results, tag=tag, msmarco=format == "msmarco")
    else:
        write_requests(output, asked, results)
    lacking = sum(doc.missing for docs in results.values() for doc in docs)
    note = f"; {lacking:,} were not in the index and are ranked last" if lacking else ""
    typer.echo(f"{output}: {sum(map(len, results.values())):,} documents of {len(results):,} queries{note}", err=True)


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
    """Texts by docid. Of a corpus file only the candidates' texts are kept in memory."""
    if source.startswith("lucene:"):
        from mixlm_rerank.integrations.pyserini import LuceneTexts, open_searcher

        return LuceneTexts(open_searcher(source.removeprefix("lucene:")))
    wanted = {hit.docid for hits in runs for hit in hits}
    return {document.docid: document.content for document in open_documents(source) if document.docid in wanted}
