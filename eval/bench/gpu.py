"""The paper's model shape on a GPU: speed of MixLM, full text and training, against what the chip can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixlm_rerank import numbers
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.decoder import FULL_CACHED, FULL_TEXT, MIXLM, PAPER
from mixlm_rerank.eval.bench.kit import Run, check_same
from mixlm_rerank.eval.bench.machine import Operations, kernel_shares
from mixlm_rerank.eval.bench.show import table
from mixlm_rerank.eval.bench.synthetic import QWEN3, DecoderShape, Words, full_text, random_mixlm
from mixlm_rerank.eval.significance import scipy_stats
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.running import positions_per_forward, weights_to
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights
from mixlm_rerank.training.mix import Batch

__all__ = ["gpu"]

TOLERANCE = 1e-3  # log-odds in float32; sums over 28 layers are in a different order
PREFIX = {False: "prefix for each", True: "prefix once"}  # whether documents share it
WARM_UP, FEWEST, MOST = 3, 5, 200  # runs
KERNELS = "kernels, "
Ints = Sequence[int]


def mixlm_name(budget: int, queries: int, items: int, at_once: int = 1) -> str:
    return f"MixLM k={budget}, {queries} queries of {items}" + (f", {at_once} calls at once" if at_once > 1 else "")


def gpu(
    folder: Path,
    *,
    seconds: float = 1.0,
    quiet: bool = True,
    device: str = "cuda",
    shape: DecoderShape = QWEN3,
    training: Mapping[str, int] = {},
    budgets: Ints = (1, 4, 8),
    queries: Ints = (1, 8, 64),
    items: Ints = (50, 250, 1000),
    documents: Ints = (150, 900),
    matrix: int = 8192,
) -> str:
    """Measure the cells that ``folder`` lacks, each for about ``seconds``; write and return the page.

    MixLM is measured at every combination of ``budgets``, ``queries`` per call, and ``items`` per query; at the largest
    number of queries also with two concurrent calls, each in its own thread. ``documents``: tokens of full texts;
    ``matrix``: size of the products that give the chip's rate; ``training``: keywords of :func:`_training_step`.

    Raises InputError without a GPU, MixLMError if the fast scorer and the reference disagree in float32.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU here that PyTorch can use: bench gpu measures one")
    run = Run(folder, None, quiet, seconds=seconds, shape=asdict(shape), training=training)
    rate = partial(run.rate, sizes=(matrix,), device=device, dtype=torch.bfloat16)
    rate()
    _scoring(run, seconds, shape, device, budgets, queries, items, documents)
    run.cell("training", partial(_training_step, shape, device, **training))
    rate()
    return _page(run, shape, f"{FULL_TEXT} of {max(documents)} tokens, {PREFIX[True]}")


def _scoring(
    run: Run, seconds: float, shape: DecoderShape, device: str, budgets: Ints, queries: Ints, items: Ints, texts: Ints
) -> None:
    model = random_mixlm(shape, max(budgets), max(texts), device)
    words, count = Words(model.ranker.tokenizer), Operations.of(model.ranker.backbone)
    prefix, most = model.config.max_query_tokens, max(queries)
    asked = words.texts(most, prefix - words.prompt(model.ranker))
    run.keep("sameness", _sameness(model, asked))
    run.say("the first passes compile kernels, which takes a minute")

    def scoring(queries: int, items: int, budget: int) -> Callable[[], object]:
        tokens = [torch.randn(items, budget, model.ranker.hidden_size) for _ in range(queries)]
        return partial(SharedPrefixScorer(model).score_batch, asked[:queries], tokens)

    def measure(name: str, work: Callable[[], object], items: int, flops: float, at_once: int = 1) -> None:
        cell = run.cell(name, _timed, work, items, flops, seconds, at_once)
        run.say(f"{name}: {cell['items'] / cell['each']:,.0f} a second")

    for budget, several, each in product(budgets, queries, items):
        flops = several * count.shared(prefix, budget + 1, each)
        for at_once in (1, 2) if several == most else (1,):
            name = mixlm_name(budget, several, each, at_once)
            measure(name, scoring(several, each, budget), several * each, flops, at_once)
    for length in texts:
        several = positions_per_forward(model.device, 2048) // (prefix + length)
        long = words.texts(several, length)
        alone, once = count.whole(prefix + length + 1, several), count.shared(prefix, length + 1, several)
        for shared, flops in ((False, alone), (True, once)):
            work = partial(full_text, model, asked[0], long, shared=shared, at_once=several)
            measure(f"{FULL_TEXT} of {length} tokens, {PREFIX[shared]}", work, several, flops)
    for each in (min(items), max(items)):
        run.cell(f"{KERNELS}{mixlm_name(1, most, each)}", kernel_shares, scoring(most, each, 1))


@torch.inference_mode()
def _sameness(model: MixLM, queries: Sequence[str]) -> dict[str, float]:
    """Compare fast scores: float32 with the reference, then bfloat16 with float32. The model stays in bfloat16."""
    tokens = torch.randn(250, model.config.tokens, model.ranker.hidden_size)
    exact, few = SharedPrefixScorer(model).score(queries[0], tokens), slice(0, 250, 50)

    def apart(a: Tensor, b: Tensor) -> float:
        return float((a - b).abs().max())

    reference = apart(exact[few], ReferenceScorer(model).score(queries[0], tokens[few]))
    recorded = deepcopy(model)  # recordings hold the current weights
    recorded.ranker.compile_packed()
    compiled = apart(SharedPrefixScorer(recorded).score(queries[0], tokens), exact)
    found = {
        "float32": check_same(reference, TOLERANCE, "the GPU's fast scores and the reference's"),
        "float32, compiled": check_same(compiled, TOLERANCE, "compiled and plain scores"),
    }
    weights_to(model.ranker, torch.bfloat16)
    plain = SharedPrefixScorer(model).score(queries[0], tokens)
    model.ranker.compile_packed()
    fast = SharedPrefixScorer(model).score(queries[0], tokens)
    many = SharedPrefixScorer(model).score_batch([*queries[1:3], queries[0]], [tokens[:70], tokens[:9], tokens])[2]
    return found | {
        "bfloat16": apart(fast, exact),
        "spread": float(exact.std()),
        "kendall_tau": float(scipy_stats().kendalltau(fast, exact).statistic),
        "compiled": apart(fast, plain),
        "company": apart(many, fast),
    }


def _timed(run: Callable[[], object], items: int, flops: float, seconds: float, at_once: int) -> dict[str, Any]:
    """Time ``run``. ``each``: seconds from one result to the next; the median, or the mean of concurrent calls.

    ``run`` returns scores on the CPU, so it ends after the GPU's work.
    """
    runs = int(min(MOST, max(FEWEST, seconds / min(_seconds(run, WARM_UP)))))
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        taken = sum(pool.map(lambda _: _seconds(run, runs), range(at_once)), [])
    whole = time.perf_counter() - started
    middle, high = np.percentile(taken, [50, 99]).tolist()
    each = middle if at_once == 1 else whole / len(taken)
    return {"items": items, "flops": flops, "runs": len(taken), "each": each, "p50": middle, "p99": high}


def _seconds(run: Callable[[], object], rounds: int) -> list[float]:
    moments = [time.perf_counter()]
    for _ in range(rounds):
        run()
        moments.append(time.perf_counter())
    return np.diff(moments).tolist()


def _training_step(
    shape: DecoderShape, device: str, *, queries: int = 8, candidates: int = 8, document: int = 256, steps: int = 8
) -> dict[str, Any]:
    """Seconds, tokens and operations of a training step; item encoder and ranker both have the ranker's shape.

    bfloat16 products, float32 weights, AdamW; the paper's SFT and distillation losses. All ``candidates`` of a query
    are scored at one embedding token; ``document``: tokens of each candidate.
    """
    model = random_mixlm(replace(shape, encoder_layers=shape.layers), 1, document, device)
    objective, weights = JointObjective(model), LossWeights(sft=1.0, distill=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    read = queries * candidates
    own = [list(range(row, row + candidates)) for row in range(0, read, candidates)]
    mine = torch.arange(read) // candidates == torch.arange(queries)[:, None]
    labels = torch.rand(queries, read).masked_fill(~mine, torch.nan)
    # words in the vocabulary; documents are truncated to their length, queries to the prefix
    texts = [f"bab {number} " + "bad " * document for number in range(read)]
    batch = Batch(["bab " * document] * queries, texts, own, labels, 4 * labels - 2)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = objective(batch, weights, [1])["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    seconds, count = _seconds(step, WARM_UP + steps)[WARM_UP:], Operations.of(model.ranker.backbone)
    forward = count.whole(document, read) + queries * count.shared(shape.prefix, 2, candidates)
    tokens = read * document + queries * shape.prefix + 2 * read
    return {"seconds": median(seconds), "tokens": tokens, "flops": 3 * forward}


def _page(run: Run, shape: DecoderShape, slowest: str) -> str:
    """Write and return the page. ``slowest``: the cell that others are compared with."""
    kept, rate = run.kept, median(run.rates)
    timed = {name: cell for name, cell in kept.items() if isinstance(cell, dict) and "each" in cell}
    speeds = {name: cell["items"] / cell["each"] for name, cell in timed.items()}
    rows = [
        {
            "name": name,
            "items_per_second": speeds[name],
            "over_full_text": speeds[name] / speeds[slowest],
            "milliseconds": [1e3 * cell["p50"], 1e3 * cell["p99"]],
            "of_matrix_rate": cell["flops"] / cell["each"] / rate,
            "runs": cell["runs"],
        }
        for name, cell in timed.items()
    ]
    kernels = {name.removeprefix(KERNELS): own for name, own in kept.items() if name.startswith(KERNELS)}
    step, same = kept["training"], kept["sameness"]
    tokens, share = step["tokens"] / step["seconds"], step["flops"] / step["seconds"] / rate
    about = (
        f"Random weights in the shape of Qwen3-0.6B ({shape.layers} layers of {shape.hidden}), bfloat16; prompt and "
        f"query of {shape.prefix} tokens; from query text and embedding tokens (float32, on the CPU) to log-odds. "
        "Medians, and 99th percentiles; of calls at once, means. Of full text, as many documents at once as fit into a "
        f"forward pass. The chip multiplies bfloat16 matrices at {rate / 1e12:.0f} TFLOP/s. Before timing, in float32: "
        f"the reference's scores within {same['float32']:.1e} log-odds. bfloat16: within {same['bfloat16']:.2g} of "
        f"float32 (scores spread by {same['spread']:.2g}), Kendall's tau {same['kendall_tau']:.4f}; compiled and not, "
        f"they differ by {same['compiled']:.1g}, in other company by {same['company']:.1g}."
    )
    paper = (
        f"The paper, on one H100 and within 500 ms at the 99th percentile: {numbers.count(int(PAPER[MIXLM]))} items a "
        f"second with one embedding token, full text of about 900 tokens {PAPER[FULL_CACHED]:.0f} (prefix once) and "
        f"{PAPER[FULL_TEXT]:.0f} (prefix for each)."
    )
    trained = (
        f"Stage III, item encoder and ranker both of this shape: {numbers.count(round(tokens))} tokens a second, "
        f"{numbers.percent(share)} of the matrix rate."
    )
    where = []
    for name, own in kernels.items():
        kinds = ", ".join(f"{kind} {numbers.milliseconds(taken)}" for kind, taken in own["kinds"].items() if taken)
        where.append(f"Milliseconds on the GPU, {name}: {kinds}; {numbers.milliseconds(own['clock'])} by the clock.")
    values = {"matrix_product_tflops": rate / 1e12, "rows": rows, "sameness": same, "kernels": kernels}
    values |= {"training": {**step, "tokens_per_second": tokens, "of_matrix_rate": share}}
    parts = [about, table(rows), paper, *where, trained]
    return run.page("The paper's shape on a GPU", "random weights in the shape of Qwen3-0.6B", values, parts)
