"""The cross-encoder of the same backbone, on text: in sentence-transformers, and in ONNX Runtime in int8.

Its head is random; how fast it is does not depend on that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.eval.bench.kit import check_same
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import quiet
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.onnx.exporting import hushed, write_graph
from mixlm_rerank.systems.loading import Loading, load_cross_encoder

__all__ = ["BATCHES", "DEFAULT_BATCH", "CrossEncoders", "Scores", "check_bert"]

DEFAULT_BATCH = 32  # of CrossEncoder.predict
BATCHES = (4, 8, 16, 32, 64)
ONNX_TOLERANCE = 1e-3  # logits, before quantisation
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Scores = Callable[[str, Sequence[str], int], NDArray[np.float32]]  # query, texts, batch size -> logits [n]


def check_bert(model: MixLM) -> None:
    """Raises InputError for a ranker that is no BERT: no cross-encoder is made of it here."""
    kind = type(model.ranker.backbone).__name__
    if kind != "BertModel":
        raise InputError(f"the grid compares MixLMs whose ranker is a BertModel with its cross-encoder, not a {kind}")


class CrossEncoders:
    """Written to ``folder`` and loaded.

    Attributes:
        plain: in float32. torch: by number format, all that pay here. onnx, onnx_float32: in ONNX Runtime.
        longest: positions that a pair may have; a longer one loses the end of its longer text.
    """

    def __init__(self, model: MixLM, folder: Path) -> None:
        checkpoint, graph = folder / "cross-encoder", folder / "float32.onnx"
        _write(model, checkpoint)
        dtypes = ["float32", *["bfloat16"] * bf16_pays("cpu")]
        with quiet():
            loaded = [
                load_cross_encoder(str(checkpoint), None, Loading("cpu", dtype, offline=True)) for dtype in dtypes
            ]
        self._tokenizer, config = loaded[0].tokenizer, loaded[0].config
        positions = int(config.max_position_embeddings)
        self.longest = min(int(loaded[0].max_seq_length or positions), positions)
        for encoder in loaded:
            encoder.max_seq_length = self.longest
        self.torch: dict[str, Scores] = dict(zip(dtypes, (partial(_predict, each) for each in loaded), strict=True))
        self.plain = self.torch["float32"]
        _export(checkpoint, graph)
        _quantise(graph, folder / "int8.onnx")
        self.onnx_float32, self.onnx = (
            partial(_run, _session(path), self._tokenizer, self.longest) for path in (graph, folder / "int8.onnx")
        )

    def positions(self, query: str, text: str) -> int:
        """Positions of the pair as it is read."""
        return len(self._tokenizer(query, text, truncation=True, max_length=self.longest)["input_ids"])

    def check(self, query: str, texts: Sequence[str]) -> dict[str, float]:
        """The graph before quantisation against PyTorch, and what quantisation leaves of the scores.

        Returns:
            ``difference``: the largest in logits before quantisation. ``correlation``: Pearson's, of int8 and PyTorch.
        """
        scorers = (self.plain, self.onnx_float32, self.onnx)
        expected, exact, int8 = (scores(query, texts, DEFAULT_BATCH) for scores in scorers)
        difference = float(np.abs(exact - expected).max())
        check_same(difference, ONNX_TOLERANCE, "the ONNX graph's and PyTorch's scores")
        return {"difference": difference, "correlation": float(np.corrcoef(int8, expected)[0, 1])}


def _predict(encoder: Any, query: str, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
    """``CrossEncoder.predict``, which sorts the pairs by length itself."""
    pairs, identity = [(query, text) for text in texts], nn.Identity()
    found: NDArray[np.float32] = encoder.predict(
        pairs, batch_size=batch_size, activation_fn=identity, show_progress_bar=False
    )
    return found


def _run(session: Any, tokenizer: Any, longest: int, query: str, texts: Sequence[str], batch_size: int) -> Any:
    """In batches of texts of like length."""
    found = np.empty(len(texts), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        pairs = [query] * len(rows), [texts[row] for row in rows]
        batch = tokenizer(*pairs, padding=True, truncation=True, max_length=longest, return_tensors="np")
        none = np.zeros_like(batch["input_ids"])  # a tokenizer that gives no segments: all the first, as in PyTorch
        (logits,) = session.run(None, {name: np.asarray(batch.get(name, none), np.int64) for name in INPUTS})
        found[rows] = logits[:, 0]
    return found


def _write(model: MixLM, folder: Path) -> None:
    """A BertForSequenceClassification with the ranker's weights and a random head, and the ranker's tokenizer."""
    settings = {**model.ranker.backbone.config.to_dict(), "num_labels": 1, "id2label": None, "label2id": None}
    torch.manual_seed(0)
    with quiet():
        classifier = BertForSequenceClassification(BertConfig(**settings))
        body = {name: weight.float() for name, weight in model.ranker.backbone.state_dict().items()}
        report = classifier.bert.load_state_dict(body, strict=False)
        left = [name for name in report.missing_keys if not name.startswith("pooler.")] + report.unexpected_keys
        if left:
            raise InputError(f"the ranker's weights do not make a cross-encoder: {left[0]!r} has no counterpart")
        classifier.save_pretrained(folder)
        model.ranker.tokenizer.save_pretrained(folder)


def _export(checkpoint: Path, path: Path) -> None:
    """As an ONNX graph in float32, for any batch and length."""
    with quiet():
        model = BertForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32, return_dict=False).eval()
    given = {name: torch.full((2, 8), int(name != "token_type_ids")) for name in INPUTS}
    write_graph(model, given, [[0, 1]] * len(INPUTS), ["logits"], path)


def _quantise(path: Path, target: Path) -> None:
    """int8 weights with a scale for each column, activations quantised as they come (dynamic quantisation).

    Raises MixLMError if a linear layer was left in float32, which a pattern that the quantiser does not know would do
    in silence.
    """
    onnx, quantization = import_module("onnx"), import_module("onnxruntime.quantization")
    capable: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    vnni = any(has for name, has in capable.items() if "vnni" in name or name == "amx_int8")
    model = onnx.load(str(path))
    del model.graph.value_info[:]  # shapes of intermediate values: PyTorch 2.9 writes some that are wrong
    with hushed():
        # without VNNI, 8-bit products of int8 weights overflow 16-bit sums: 7 bits then, as ONNX Runtime advises
        quantization.quantize_dynamic(
            model, target, weight_type=quantization.QuantType.QInt8, per_channel=True, reduce_range=not vnni
        )
    before, after = model.graph, onnx.load(str(target)).graph
    constants = {constant.name for constant in before.initializer}
    linear = sum(node.op_type in ("MatMul", "Gemm") and node.input[1] in constants for node in before.node)
    int8 = sum(node.op_type == "MatMulInteger" for node in after.node)
    if int8 != linear:
        raise MixLMError(f"ONNX Runtime quantised {int8} of {linear} linear layers")


def _session(path: Path) -> Any:
    """On as many threads as PyTorch uses."""
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
