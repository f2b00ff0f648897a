"""The same cross-encoder in ONNX Runtime, in int8: what the fast rerankers of today do on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from mixlm_rerank.errors import MixLMError
from mixlm_rerank.model.assembly import load_tokenizer, quiet
from mixlm_rerank.onnx.exporting import hushed, write_graph

__all__ = ["OnnxScorer", "export", "quantise"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Logits(nn.Module):
    """Plain tensors in and out, as an exported graph has them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        logits: Tensor = found.logits[:, 0]
        return logits


def export(checkpoint: Path, path: Path) -> None:
    """A saved BertForSequenceClassification as an ONNX graph in float32, for any batch and length."""
    with quiet():
        model = _Logits(BertForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)).eval()
    given = dict(zip(INPUTS, (torch.ones(2, 8).long(), torch.ones(2, 8).long(), torch.zeros(2, 8).long()), strict=True))
    write_graph(model, given, [[0, 1]] * len(INPUTS), ["logits"], path)


def quantise(path: Path, target: Path) -> None:
    """int8 weights with a scale for each column, activations quantised as they come (dynamic quantisation).

    Raises MixLMError if a linear layer was left in float32, which a pattern that the quantiser does not know would do
    in silence.
    """
    onnx, quantization = import_module("onnx"), import_module("onnxruntime.quantization")
    with hushed():
        # without VNNI, 8-bit products of int8 weights overflow 16-bit sums: 7 bits then, as ONNX Runtime advises
        quantization.quantize_dynamic(
            path, target, weight_type=quantization.QuantType.QInt8, per_channel=True, reduce_range=not _has_vnni()
        )
    before, after = (_count(onnx.load(str(each))) for each in (path, target))
    if after["int8"] != before["weights"]:
        raise MixLMError(f"ONNX Runtime quantised {after['int8']} of {before['weights']} linear layers")


class OnnxScorer:
    """A graph with its fast tokenizer, in batches of texts of like length, on as many threads as PyTorch uses."""

    def __init__(self, path: Path, checkpoint: Path, longest: int) -> None:
        runtime: Any = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._tokenizer = load_tokenizer(str(checkpoint), local_files_only=True)
        self._longest = longest

    def scores(self, query: str, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Logits, float32 [n]."""
        found = np.empty(len(texts), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self._tokenizer(
                [query] * len(rows),
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="np",
            )
            none = np.zeros_like(batch["input_ids"])  # a tokenizer that gives no segments: all the first, as in PyTorch
            fed = {name: np.asarray(batch.get(name, none), dtype=np.int64) for name in INPUTS}
            (found[rows],) = self._session.run(None, fed)
        return found


def _count(graph: Any) -> dict[str, int]:
    """Products with a constant matrix, and products in int8."""
    constants = {constant.name for constant in graph.graph.initializer}
    nodes = graph.graph.node
    return {
        "weights": sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in constants for node in nodes),
        "int8": sum(node.op_type == "MatMulInteger" for node in nodes),
    }


def _has_vnni() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    return any(has for name, has in torch.cpu.get_capabilities().items() if "vnni" in name or name == "amx_int8")
