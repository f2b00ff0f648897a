"""The paper's shape on a GPU: items a second of MixLM and of full text, against what the chip can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.cells import Cells, conditions
from mixlm_rerank.eval.bench.flops import shape_of, shared_prefix_flops, whole_flops
from mixlm_rerank.eval.bench.gpu_model import GpuShape, gpu_mixlm
from mixlm_rerank.eval.bench.gpu_profile import kernel_shares
from mixlm_rerank.eval.bench.product import keep_rate
from mixlm_rerank.eval.bench.sameness import check_same
from mixlm_rerank.eval.bench.texts import Words
from mixlm_rerank.eval.significance import scipy_stats
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.positions import positions_per_forward
from mixlm_rerank.model.precision import weights_to
from mixlm_rerank.scoring import ReferenceScorer, SharedPrefixScorer

__all__ = ["OWN", "SHARED", "GpuOptions", "full_text_name", "measure_gpu", "mixlm_name"]

TOLERANCE = 1e-3  # log-odds in float32, of sums over 28 layers in another order
OWN, SHARED = "prefix for each", "prefix once"
WARM_UP, FEWEST, MOST = 3, 5, 200


@dataclass(frozen=True)
class GpuOptions:
    """Attributes:
    shape: of the model.
    budgets, queries, items: MixLM is measured at every combination; ``queries`` are scored in one call.
    at_once: so many calls at a time as well, each in a thread of its own, where a call has the most queries.
    documents: tokens of full texts.
    seconds: of each measurement, about.
    matrix: size of the products that tell the chip's rate.
    """

    shape: GpuShape = GpuShape()
    budgets: tuple[int, ...] = (1, 4, 8)
    queries: tuple[int, ...] = (1, 8, 64)
    items: tuple[int, ...] = (50, 250, 1000)
    at_once: int = 2
    documents: tuple[int, ...] = (150, 900)
    seconds: float = 1.0
    matrix: int = 8192

    def calls(self) -> Iterator[tuple[int, int, int, int]]:
        """Token budget, queries, items of a query, and calls at once, of every cell of MixLM."""
        for budget, queries, items in product(self.budgets, self.queries, self.items):
            yield budget, queries, items, 1
            if queries == max(self.queries) and self.at_once > 1:
                yield budget, queries, items, self.at_once


def mixlm_name(budget: int, queries: int, items: int, at_once: int = 1) -> str:
    """
    >>> mixlm_name(1, 64, 50), mixlm_name(1, 64, 50, 2)
    ('MixLM k=1, 64 queries of 50', 'MixLM k=1, 64 queries of 50, 2 calls at once')
    """
    return f"MixLM k={budget}, {queries} queries of {items}" + (f", {at_once} calls at once" if at_once > 1 else "")


def full_text_name(document: int, prefix: str) -> str:
    """
    >>> full_text_name(900, SHARED)
    'full text of 900 tokens, prefix once'
    """
    return f"full text of {document} tokens, {prefix}"


def measure_gpu(
    folder: Path,
    options: GpuOptions = GpuOptions(),
    *,
    device: str = "cuda",
    further: Mapping[str, Callable[[], object]] = {},
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """All cells, kept in ``folder``: those of the names above, sameness, matrix rates, kernels.

    ``further``: other cells by name, and what measures them, when the model is gone.

    Raises InputError without a GPU, MixLMError where the fast scorer and the reference do not agree in float32.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU here that PyTorch can use: bench gpu measures one")
    kept = Cells(folder, conditions(None, **asdict(options)))
    try:
        place = torch.device(device)
        matrices: dict[str, Any] = {"sizes": (options.matrix,), "rounds": 10, "device": device, "dtype": torch.bfloat16}
        keep_rate(kept, **matrices)
        model = gpu_mixlm(options.shape, max(options.budgets), max(options.documents), place)
        words, draw = Words(model.ranker.tokenizer), Random(0)
        around = len(model.ranker.prefixes([words.text(1, draw)])[0]) - 1
        queries = words.texts(max(options.queries), options.shape.prefix - around, draw)
        _check_sameness(kept, model, queries)
        say(f"{folder}: the first passes compile kernels, which takes a minute")
        for budget, count, items, at_once in options.calls():
            name = mixlm_name(budget, count, items, at_once)
            if name not in kept.kept:
                tokens = [torch.randn(items, budget, options.shape.hidden) for _ in range(count)]
                run = partial(SharedPrefixScorer(model).score_batch, queries[:count], tokens)
                flops = count * shared_prefix_flops(_shape(model), options.shape.prefix, budget + 1, items)
                say(_said(kept.keep(name, _timed(run, count * items, flops, options.seconds, at_once))))
        for document in options.documents:
            texts = words.texts(positions_per_forward(place, 2048) // (options.shape.prefix + document), document, draw)
            for prefix in (OWN, SHARED):
                name = full_text_name(document, prefix)
                if name not in kept.kept:
                    read = partial(_full_text, model, queries[0], texts, prefix)
                    flops = _full_text_flops(model, options.shape.prefix, document, len(texts), prefix)
                    say(_said(kept.keep(name, _timed(read, len(texts), flops, options.seconds))))
        if "kernels" not in kept.kept:
            kept.keep("kernels", _kernels(model, queries, options))
        del model
        for name, measured in further.items():
            if name not in kept.kept:
                kept.keep(name, measured())
        keep_rate(kept, **matrices)
        return kept.kept
    finally:
        kept.close()


@torch.inference_mode()
def _check_sameness(kept: Cells, model: MixLM, queries: Sequence[str]) -> None:
    """The fast scorer in float32 against the reference, then in bfloat16 against float32; the model stays in that."""
    tokens, budget = torch.randn(250, model.config.tokens, model.ranker.hidden_size), model.config.tokens
    exact = SharedPrefixScorer(model).score(queries[0], tokens)
    few = slice(0, 250, 50)
    difference = float((exact[few] - ReferenceScorer(model).score(queries[0], tokens[few])).abs().max())
    found = {"float32": check_same(difference, TOLERANCE, "the GPU's fast scores and the reference's")}
    recorded = deepcopy(model)  # recordings are of the weights as they are
    recorded.ranker.compile_packed()
    difference = float((SharedPrefixScorer(recorded).score(queries[0], tokens) - exact).abs().max())
    found["float32, compiled"] = check_same(difference, TOLERANCE, "compiled and plain scores")
    weights_to(model.ranker, torch.bfloat16)
    plain = SharedPrefixScorer(model).score(queries[0], tokens)
    model.ranker.compile_packed()
    fast = SharedPrefixScorer(model).score(queries[0], tokens)
    many = SharedPrefixScorer(model).score_batch([*queries[1:3], queries[0]], [tokens[:70], tokens[:9], tokens])[2]
    found |= {
        "bfloat16": float((fast - exact).abs().max()),
        "spread": float(exact.std()),
        "kendall_tau": float(scipy_stats().kendalltau(fast, exact).statistic),
        "compiled": float((fast - plain).abs().max()),
        "company": float((many - fast).abs().max()),
        "budget": budget,
    }
    kept.keep("sameness", found)


@torch.inference_mode()
def _full_text(model: MixLM, query: str, texts: Sequence[str], prefix: str) -> Tensor:
    """Log-odds of documents of one length, float32 [n]: the packed pass over text instead of embedding tokens."""
    ranker = model.ranker
    (own,) = ranker.prefixes([query])
    documents = torch.stack(ranker.documents(texts, [len(own)] * len(texts)))
    prefixes = [own] if prefix == SHARED else [own] * len(texts)
    items = [documents] if prefix == SHARED else list(documents[:, None])
    scores: Tensor = model.readout(torch.cat(ranker.forward_packed(prefixes, items)))
    return scores.cpu()


def _full_text_flops(model: MixLM, prefix: int, document: int, count: int, kind: str) -> float:
    if kind == OWN:
        return whole_flops(_shape(model), prefix + document + 1, count)
    return shared_prefix_flops(_shape(model), prefix, document + 1, count)


def _shape(model: MixLM) -> Any:
    return shape_of(model.ranker.backbone.config)


def _timed(run: Callable[[], object], items: int, flops: float, seconds: float, at_once: int = 1) -> dict[str, Any]:
    """``run`` gives scores on the CPU, so that its end is the end of the GPU's work too.

    ``each``: seconds from one result to the next: the median, or of several calls at once the mean.
    """
    runs = int(min(MOST, max(FEWEST, seconds / min(_seconds(run, WARM_UP)))))
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        taken = sum(pool.map(lambda _: _seconds(run, runs), range(at_once)), [])
    middle, high = np.percentile(taken, [50, 99]).tolist()
    each = middle if at_once == 1 else (time.perf_counter() - started) / len(taken)
    return {"items": items, "flops": flops, "runs": len(taken), "each": each, "p50": middle, "p99": high}


def _said(cell: Mapping[str, Any]) -> str:
    speed = cell["items"] / cell["each"]
    return f"{cell['items']:,} items in {1e3 * cell['p50']:.1f} ms (p99 {1e3 * cell['p99']:.1f}): {speed:,.0f} a second"


def _seconds(run: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return taken


def _kernels(model: MixLM, queries: Sequence[str], options: GpuOptions) -> dict[str, Any]:
    """Where the GPU's time goes at the paper's shape, and with as many items as are measured."""
    found = {}
    for items in (min(options.items), max(options.items)):
        count = max(options.queries)
        tokens = [torch.randn(items, 1, options.shape.hidden) for _ in range(count)]
        run = partial(SharedPrefixScorer(model).score_batch, queries[:count], tokens)
        found[mixlm_name(1, count, items)] = kernel_shares(run)
    return found
