"""Stage III at the paper's shape on a GPU: tokens a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from mixlm_rerank.eval.bench.flops import shape_of, shared_prefix_flops, whole_flops
from mixlm_rerank.eval.bench.gpu_model import GpuShape, gpu_mixlm
from mixlm_rerank.training.batches import Batch
from mixlm_rerank.training.joint import JointObjective, LossWeights

__all__ = ["TrainingShape", "measure_training"]

WARM_UP = 3


@dataclass(frozen=True)
class TrainingShape:
    """Attributes:
    queries, candidates: of a step; all are scored at one embedding token.
    document: tokens of each.
    steps: timed.
    """

    queries: int = 8
    candidates: int = 8
    document: int = 256
    steps: int = 8


def measure_training(
    shape: GpuShape, training: TrainingShape = TrainingShape(), device: str = "cuda"
) -> dict[str, Any]:
    """Seconds, tokens and operations of a step of item encoder and ranker, both of the ranker's shape.

    bfloat16 products, float32 weights, AdamW; the paper's SFT and distillation losses.
    """
    on_gpu = device == "cuda"
    model = gpu_mixlm(replace(shape, encoder_layers=shape.layers), 1, training.document, torch.device(device))
    objective, weights = JointObjective(model), LossWeights(sft=1.0, distil=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=on_gpu)
    batch = _batch(training)
    taken = []
    for _ in range(WARM_UP + training.steps):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = objective(batch, weights, [1])["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    backbone, documents = shape_of(model.ranker.backbone.config), training.queries * training.candidates
    forward = whole_flops(backbone, training.document, documents)
    forward += training.queries * shared_prefix_flops(backbone, shape.prefix, 2, training.candidates)
    return {
        "seconds": median(taken[WARM_UP:]),
        "tokens": documents * training.document + training.queries * shape.prefix + 2 * documents,
        "flops": 3 * forward,
        "memory": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def _batch(training: TrainingShape) -> Batch:
    """Words that the tokenizer has; documents are cut to their length."""
    documents = training.queries * training.candidates
    own = [list(range(row, row + training.candidates)) for row in range(0, documents, training.candidates)]
    labels = torch.full((training.queries, documents), torch.nan)
    for query, rows in enumerate(own):
        labels[query, rows] = torch.rand(training.candidates)
    queries = ["bab " * training.document] * training.queries  # cut to the prefix
    texts = [f"bab {number} " + "bad " * training.document for number in range(documents)]
    return Batch(queries, texts, own, labels, 4 * labels - 2)
