"""The contenders of the grid: MixLM end to end, and cross-encoders on text, in PyTorch and ONNX Runtime.

Cross-encoders have random heads: speed does not depend on weights. One has the ranker's body; others have the shapes of
small rerankers with published speeds, so that known figures can be compared with this machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, ModernBertConfig

from mixlm_rerank.eval.bench.kit import Entrant
from mixlm_rerank.eval.bench.machine import Operations
from mixlm_rerank.eval.bench.synthetic import Words, random_docids
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.hub import quiet
from mixlm_rerank.model.running import bf16_pays
from mixlm_rerank.onnx.exporting import hushed, write_graph
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.systems.loading import Loading, load_cross_encoder

__all__ = ["BATCHES", "QUERY", "SHAPES", "Contender", "CrossEncoder", "Task", "mixlm", "of_ranker"]
__all__ += ["of_shape", "reader", "tasks"]

QUERY = 16  # tokens
WARM = 16  # documents in a cross-encoder's warm-up
DEFAULT_BATCH = 32  # of CrossEncoder.predict
BATCHES = (4, 8, 16, 32, 64)
Scores = Callable[[str, Sequence[str], int], Any]  # query, texts, batch size -> logits [n]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {  # ModernBERT of the Ettin suite (2507.11412), MiniLM (2002.10957)
    "shape of ettin-reranker-17m": (ModernBertConfig, (256, 7, 4, 384)),
    "shape of ettin-reranker-32m": (ModernBertConfig, (384, 10, 6, 576)),
    "shape of MiniLM-L12": (BertConfig, (384, 12, 12, 1536)),
}


@dataclass(frozen=True)
class Task:
    """A query and its candidates."""

    query: str
    hits: list[tuple[str, float]]  # (docid, first-stage score)
    texts: Sequence[str]  # for full-text contenders


Contender = Callable[[Sequence[Task]], Entrant]  # tasks -> what is timed


def tasks(words: Words, index: int, length: int, candidates: int, count: int) -> list[Task]:
    """``count`` tasks with texts of ``length`` tokens and docids of an index of ``index`` documents; queries differ."""
    texts, found = words.texts(candidates, length), []
    for _ in range(count):
        hits = [(docid, 0.0) for docid in random_docids(candidates, index, words.draw)]
        found.append(Task(words.text(QUERY), hits, words.draw.sample(texts, len(texts))))
    return found


def mixlm(name: str, reranker: Reranker, model: MixLM, tokens: int) -> Contender:
    """MixLM end to end, from docids to a ranking. ``model``: the model that the reranker's was made from."""
    ranker, operations = model.ranker, Operations.of(model.ranker.backbone)
    below = replace(operations, layers=ranker.mix_layer)
    above = replace(operations, layers=ranker.layers - ranker.mix_layer)

    def entrant(drawn: Sequence[Task]) -> Entrant:
        prefix = len(ranker.prefixes([drawn[0].query])[0])
        flops = below.whole(prefix) + above.shared(*ranker.positions(prefix, tokens), len(drawn[0].hits))
        runs = [partial(reranker.rerank, task.query, task.hits) for task in drawn]
        return Entrant(name, runs, None, {"tokens": tokens, "settings": "", "flops": flops})

    return entrant


class CrossEncoder:
    """A cross-encoder with a random head, saved to ``folder`` and loaded by sentence-transformers in ``formats``."""

    def __init__(
        self,
        folder: Path,
        config: Any,
        tokenizer: Any,
        body: Mapping[str, Tensor] | None = None,
        formats: Sequence[str] = ("float32",),
    ) -> None:
        torch.manual_seed(0)
        self.tokenizer = tokenizer
        # most positions of a pair; a longer pair is truncated at the end of its longer text
        self.longest = min(tokenizer.model_max_length, config.max_position_embeddings)
        with quiet():
            classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
            if body is not None:
                classifier.base_model.load_state_dict(body, strict=False)  # without the pooler
            classifier.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        self._operations = Operations.of(classifier.base_model)
        self.scores: dict[str, Scores] = {}  # by number format
        for name in formats:
            loaded = load_cross_encoder(str(folder), self.longest, Loading("cpu", name, offline=True))
            self.scores[name] = partial(_predict, loaded)

    def flops(self, task: Task) -> float:
        """Floating-point operations for the task's texts (all of one length) after truncation."""
        read = self.tokenizer(task.query, task.texts[0], truncation=True, max_length=self.longest)["input_ids"]
        return self._operations.whole(len(read), len(task.texts))


def of_ranker(model: MixLM, folder: Path) -> CrossEncoder:
    """The ranker's cross-encoder in all number formats that pay here; ``ONNX`` (float32), ``int8``: in ONNX Runtime."""
    backbone, graph = model.ranker.backbone, folder / "float32.onnx"
    config = BertConfig(**{**backbone.config.to_dict(), "num_labels": 1, "id2label": None, "label2id": None})
    formats = ["float32", *["bfloat16"] * bf16_pays("cpu")]
    encoder = CrossEncoder(folder, config, model.ranker.tokenizer, backbone.state_dict(), formats)
    with quiet():
        kind = AutoModelForSequenceClassification
        classifier = kind.from_pretrained(folder, dtype=torch.float32, return_dict=False).eval()
    given = {name: torch.full((2, 8), int(name != "token_type_ids")) for name in INPUTS}
    write_graph(classifier, given, [[0, 1]] * len(INPUTS), ["logits"], graph)
    encoder.scores |= {"ONNX": _in_onnx(graph, encoder), "int8": _in_onnx(_quantised(graph), encoder)}
    return encoder


def of_shape(name: str, tokenizer: Any, folder: Path) -> CrossEncoder:
    """A cross-encoder of one of ``SHAPES``."""
    kind, sizes = SHAPES[name]
    options = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id or 0, "num_labels": 1}
    options |= {f"{part}_token_id": None for part in ("bos", "eos", "cls", "sep")}
    return CrossEncoder(folder, kind(**dict(zip(SIZES, sizes, strict=True)), **options), tokenizer)


def reader(name: str, encoder: CrossEncoder, kind: str = "float32", batch: int = DEFAULT_BATCH) -> Contender:
    """A cross-encoder in one number format and batch size (its default name). Its runs give text rows, best first."""
    scores, settings = encoder.scores[kind], f"{kind}, batches of {batch}"

    def ranked(task: Task, most: int | None = None) -> Any:
        return np.argsort(-scores(task.query, task.texts[:most], batch), kind="stable")

    def entrant(drawn: Sequence[Task]) -> Entrant:
        facts = {"tokens": None, "settings": settings, "flops": encoder.flops(drawn[0])}
        runs, warm_up = [partial(ranked, task) for task in drawn], partial(ranked, drawn[-1], WARM)
        return Entrant(name or settings, runs, warm_up, facts)

    return entrant


def _predict(encoder: Any, query: str, texts: Sequence[str], batch_size: int) -> Any:
    """``CrossEncoder.predict``, which sorts the pairs by length itself."""
    pairs, identity = [(query, text) for text in texts], nn.Identity()
    return encoder.predict(pairs, batch_size=batch_size, activation_fn=identity, show_progress_bar=False)


def _quantised(path: Path) -> Path:
    """Dynamic quantisation of a graph: int8 weights with a scale per column, activations quantised at run time."""
    onnx, quantization = import_module("onnx"), import_module("onnxruntime.quantization")
    capable: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    vnni = any(has for name, has in capable.items() if "vnni" in name or name == "amx_int8")
    model = onnx.load(str(path))
    del model.graph.value_info[:]  # shapes of intermediate values: PyTorch 2.9 writes some that are wrong
    with hushed():
        # without VNNI, 8-bit products of int8 weights overflow 16-bit sums: use 7 bits, as ONNX Runtime advises
        options = {"weight_type": quantization.QuantType.QInt8, "per_channel": True, "reduce_range": not vnni}
        quantization.quantize_dynamic(model, path.parent / "int8.onnx", **options)
    return path.parent / "int8.onnx"


def _in_onnx(path: Path, encoder: CrossEncoder) -> Scores:
    """Scores by ONNX Runtime, on as many threads as PyTorch uses."""
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def scores(query: str, texts: Sequence[str], batch_size: int) -> Any:
        """Texts of a task have one length: they need no sorting."""
        found = []
        for start in range(0, len(texts), batch_size):
            part = list(texts[start : start + batch_size])
            given = {"padding": True, "truncation": True, "max_length": encoder.longest, "return_tensors": "np"}
            batch = encoder.tokenizer([query] * len(part), part, **given)
            none = np.zeros_like(batch["input_ids"])  # segment ids of a tokenizer without them, as in PyTorch
            (logits,) = session.run(None, {name: np.asarray(batch.get(name, none), np.int64) for name in INPUTS})
            found.append(logits[:, 0])
        return np.concatenate(found)

    return scores
