"""Stage III at the paper's shape on a GPU: a training step."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from mixlm_rerank.eval.bench.machine import Operations
from mixlm_rerank.eval.bench.synthetic import DecoderShape, random_mixlm
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights
from mixlm_rerank.training.mix import Batch

__all__ = ["training_step"]

WARM_UP = 3


def training_step(
    shape: DecoderShape, device: str, *, queries: int = 8, candidates: int = 8, document: int = 256, steps: int = 8
) -> dict[str, Any]:
    """Seconds, tokens and operations of a step of item encoder and ranker, both of the ranker's shape.

    bfloat16 products, float32 weights, AdamW; the paper's SFT and distillation losses. All ``candidates`` of a query
    are scored at one embedding token; ``document``: tokens of each.
    """
    on_gpu = device == "cuda"
    model = random_mixlm(replace(shape, encoder_layers=shape.layers), 1, document, device)
    objective, weights = JointObjective(model), LossWeights(sft=1.0, distill=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=on_gpu)
    batch, taken = _batch(queries, candidates, document), []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = objective(batch, weights, [1])["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    count, read = Operations.of(model.ranker.backbone), queries * candidates
    forward = count.whole(document, read) + queries * count.shared(shape.prefix, 2, candidates)
    tokens = read * document + queries * shape.prefix + 2 * read
    return {"seconds": median(taken[WARM_UP:]), "tokens": tokens, "flops": 3 * forward}


def _batch(queries: int, candidates: int, document: int) -> Batch:
    """Words that the tokenizer has; documents are cut to their length."""
    documents = queries * candidates
    own = [list(range(row, row + candidates)) for row in range(0, documents, candidates)]
    mine = torch.arange(documents) // candidates == torch.arange(queries)[:, None]
    labels = torch.rand(queries, documents).masked_fill(~mine, torch.nan)
    texts = [f"bab {number} " + "bad " * document for number in range(documents)]
    return Batch(["bab " * document] * queries, texts, own, labels, 4 * labels - 2)  # queries are cut to the prefix
