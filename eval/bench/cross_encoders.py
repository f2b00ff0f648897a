"""Cross-encoders with random heads, on text: in sentence-transformers, and in ONNX Runtime in int8.

How fast a model is does not depend on its weights. One has the ranker's body; others the shapes of small rerankers
whose speed is published, so that figures that people know can be seen on this machine (pairs a second on a desktop
i7-13700K in float32, by their authors): ettin-reranker-17m 267, ettin-reranker-32m 92.5, MiniLM-L12 76 (MiniLM-L6, the
default model's own shape: 144).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, ModernBertConfig

from mixlm_rerank.errors import InputError, MixLMError
from mixlm_rerank.eval.bench.kit import check_same
from mixlm_rerank.eval.bench.machine import Operations
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import quiet
from mixlm_rerank.model.precision import bf16_pays
from mixlm_rerank.onnx.exporting import hushed, write_graph
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.peers import load_cross_encoder

__all__ = ["BATCHES", "DEFAULT_BATCH", "SHAPES", "CrossEncoder", "Scores", "check_bert", "check_onnx", "of_ranker"]
__all__ += ["of_shape", "torch_formats"]

DEFAULT_BATCH = 32  # of CrossEncoder.predict
BATCHES = (4, 8, 16, 32, 64)
ONNX_TOLERANCE = 1e-3  # logits, before quantisation
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {  # ModernBERT of the Ettin suite (2507.11412), MiniLM (2002.10957)
    "shape of ettin-reranker-17m": (ModernBertConfig, (256, 7, 4, 384)),
    "shape of ettin-reranker-32m": (ModernBertConfig, (384, 10, 6, 576)),
    "shape of MiniLM-L12": (BertConfig, (384, 12, 12, 1536)),
}

Scores = Callable[[str, Sequence[str], int], NDArray[np.float32]]  # query, texts, batch size -> logits [n]


def check_bert(model: MixLM) -> None:
    """Raises InputError for a ranker that is no BERT: no cross-encoder is made of it here."""
    kind = type(model.ranker.backbone).__name__
    if kind != "BertModel":
        raise InputError(f"the grid compares MixLMs whose ranker is a BertModel with its cross-encoder, not a {kind}")


class CrossEncoder:
    """Written to ``folder`` and loaded by sentence-transformers.

    Args:
        body: weights under the head, by default random.
        dtypes: number formats to load it in.

    Attributes:
        scores: by number format.
        longest: positions that a pair may have; a longer one loses the end of its longer text.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        tokenizer: Any,
        body: Mapping[str, Tensor] | None = None,
        dtypes: Sequence[str] = ("float32",),
    ) -> None:
        self.folder, self.scores, self.tokenizer = folder, dict[str, Scores](), tokenizer
        torch.manual_seed(0)
        with quiet():
            classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
            if body is not None:
                report = classifier.base_model.load_state_dict(body, strict=False)
                left = [name for name in report.missing_keys if not name.startswith("pooler.")] + report.unexpected_keys
                if left:
                    raise InputError(
                        f"the ranker's weights do not make a cross-encoder: {left[0]!r} has no counterpart"
                    )
            classifier.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        self.longest = min(tokenizer.model_max_length, config.max_position_embeddings)
        self._operations = Operations.of(classifier.base_model)
        for dtype in dtypes:
            encoder = load_cross_encoder(str(folder), self.longest, Loading("cpu", dtype, offline=True))
            self.scores[dtype] = partial(_predict, encoder)

    def flops(self, query: str, texts: Sequence[str]) -> float:
        """Operations of a query with texts of one length, as they are read."""
        read = self.tokenizer(query, texts[0], truncation=True, max_length=self.longest)["input_ids"]
        return self._operations.whole(len(read), len(texts))


def of_ranker(model: MixLM, folder: Path) -> CrossEncoder:
    """In all number formats that pay here, and its graph in ONNX Runtime: ``int8``, and ``ONNX`` in float32."""
    backbone = model.ranker.backbone
    config = BertConfig(**{**backbone.config.to_dict(), "num_labels": 1, "id2label": None, "label2id": None})
    encoder = CrossEncoder(folder, config, model.ranker.tokenizer, backbone.state_dict(), torch_formats())
    with quiet():
        kind = AutoModelForSequenceClassification
        classifier = kind.from_pretrained(folder, dtype=torch.float32, return_dict=False).eval()
    given = {name: torch.full((2, 8), int(name != "token_type_ids")) for name in INPUTS}
    paths = {name: folder / f"{name}.onnx" for name in ("ONNX", "int8")}
    write_graph(classifier, given, [[0, 1]] * len(INPUTS), ["logits"], paths["ONNX"])
    _quantise(paths["ONNX"], paths["int8"])
    encoder.scores |= {name: partial(_run, _session(path), encoder) for name, path in paths.items()}
    return encoder


def torch_formats() -> list[str]:
    """Number formats in which PyTorch is fast here."""
    return ["float32", *["bfloat16"] * bf16_pays("cpu")]


def of_shape(name: str, tokenizer: Any, folder: Path) -> CrossEncoder:
    """One of ``SHAPES``."""
    kind, sizes = SHAPES[name]
    options = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id or 0, "num_labels": 1}
    options |= {f"{part}_token_id": None for part in ("bos", "eos", "cls", "sep")}
    config = kind(**dict(zip(SIZES, sizes, strict=True)), **options)
    return CrossEncoder(folder, config, tokenizer)


def check_onnx(encoder: CrossEncoder, query: str, texts: Sequence[str]) -> dict[str, float]:
    """The graph before quantisation against PyTorch, and what quantisation leaves of the scores.

    Returns:
        ``difference``: the largest in logits before quantisation. ``correlation``: Pearson's, of int8 and PyTorch.
    """
    expected, exact, int8 = (encoder.scores[kind](query, texts, DEFAULT_BATCH) for kind in ("float32", "ONNX", "int8"))
    difference = float(np.abs(exact - expected).max())
    check_same(difference, ONNX_TOLERANCE, "the ONNX graph's and PyTorch's scores")
    return {"difference": difference, "correlation": float(np.corrcoef(int8, expected)[0, 1])}


def _predict(encoder: Any, query: str, texts: Sequence[str], batch_size: int) -> Any:
    """``CrossEncoder.predict``, which sorts the pairs by length itself."""
    pairs, identity = [(query, text) for text in texts], nn.Identity()
    return encoder.predict(pairs, batch_size=batch_size, activation_fn=identity, show_progress_bar=False)


def _run(session: Any, encoder: CrossEncoder, query: str, texts: Sequence[str], batch_size: int) -> Any:
    """In batches of texts of like length."""
    found = np.empty(len(texts), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        pairs = [query] * len(rows), [texts[row] for row in rows]
        options = {"padding": True, "truncation": True, "max_length": encoder.longest, "return_tensors": "np"}
        batch = encoder.tokenizer(*pairs, **options)
        none = np.zeros_like(batch["input_ids"])  # a tokenizer that gives no segments: all the first, as in PyTorch
        (logits,) = session.run(None, {name: np.asarray(batch.get(name, none), np.int64) for name in INPUTS})
        found[rows] = logits[:, 0]
    return found


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
