"""Export a MixLM to ONNX: two graphs, two tokenizers and their metadata. Needs PyTorch."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from ..errors import InputError
from ..folders import replacing
from ..model import MixLM
from ..model.config import EXPORTED
from ..model.fast.int8 import is_int8
from ..model.fingerprint import fingerprint
from ..model.known_answer import QUERY, TEXTS, write_known_answer
from ..scoring import ReferenceScorer
from .graphs import ItemEncoderGraph, RankerGraph
from .mixlm import CONFIG, GRAPH, KNOWN_ANSWER, TOKENIZER, About, OnnxMixLM, library

__all__ = ["check_installed", "export", "hushed", "write_graph"]

TOLERANCE = 1e-4  # or this share of the largest value, where that is above 1
# Of several lengths: a graph is made from one example, and must hold for all lengths.
CHECKED_QUERIES = (QUERY, "sky", f"{QUERY} " * 40)
CHECKED_TEXTS = (*TEXTS, "sky", " ".join(TEXTS * 40))


def export(model: MixLM, folder: str | Path) -> None:
    """Write ``model`` for :class:`.OnnxMixLM`, after checking that the exported model computes the same.

    Args:
        model: in float32 on the CPU.
        folder: files of an earlier export in it are replaced.

    Raises:
        InputError: a model that cannot be exported, or a folder that cannot be written.
        MissingDependency: onnx, onnxscript or onnxruntime is not installed.
    """
    check_installed("onnx")
    if is_int8(model) or model.ranker.dtype != torch.float32 or model.device.type != "cpu":
        raise InputError(
            f"{model.name} must be in float32 on the CPU to be exported: load it with device='cpu' and dtype='float32'"
        )
    if model.config.title_tokens:
        raise InputError(
            f"{model.name} reads titles (title_tokens={model.config.title_tokens}): an exported ranker reads embedding "
            "tokens alone. Export a model without titles, or rank with this one in PyTorch"
        )
    if model.config.vectors:
        raise InputError(f"{model.name} takes vectors of your own: models without an item encoder cannot be exported")
    model = copy.deepcopy(model).eval()
    try:
        with replacing(Path(folder)) as draft:
            for name in ("ranker", "item_encoder"):  # rankers first: not every kind can be exported
                _write_part(model, name, draft)
                tokenizer = model.readers[name].tokenizer
                tokenizer.backend_tokenizer.save(str(draft / TOKENIZER.format(name)))
            model.config.save(draft / CONFIG)
            About(
                fingerprints=[model.fingerprint, fingerprint(model.item_encoder, model.config, former=True)],
                token_size=model.item_encoder.token_size,
                query_tokens=model.item_encoder.query_tokens,
                unknown=[part.tokenizer.unk_token_id for part in model.readers.values()],
            ).save(draft / EXPORTED)
            written = OnnxMixLM(draft)
            _check(model, written)
            write_known_answer(written.known_answers(), draft / KNOWN_ANSWER)
    except OSError as error:
        raise InputError(f"cannot write the exported model to {folder}: {error}") from None


def check_installed(extra: str) -> None:
    """Raises MissingDependency, which names the extra, if a package that exporting needs is not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        library(name, extra)


def write_graph(
    module: nn.Module, given: Mapping[str, Tensor], free: Sequence[Sequence[int]], outputs: Sequence[str], path: Path
) -> None:
    """Write a module of plain tensors as an ONNX graph in float32.

    Uses the exporter based on torch.export: the older one (``dynamo=False``) silently writes a wrong graph for BERT.

    Args:
        given: an example of each input of ``forward``, in its order. Free sizes must be above 1, and all tensors
            distinct: the exporter would take a 1 for a constant, and a tensor given twice for one input.
        free: the dimensions of each input that can have any size.
    """
    with hushed():
        torch.onnx.export(
            module,
            tuple(given.values()),
            path,
            input_names=list(given),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict.fromkeys(each, torch.export.Dim.DYNAMIC) for each in free),
            dynamo=True,
            external_data=False,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            verbose=False,
        )


def _stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Stable sorting, which the exporter lacks, by TopK: stable by its specification. ``dim`` counts from the front."""
    operators = library("onnxscript").opset18
    size = operators.Shape(values, start=dim, end=dim + 1)
    return operators.TopK(values, size, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def hushed() -> Iterator[None]:
    """Suppress advice and deprecation warnings of exporter and quantiser, none of which concerns the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write_part(model: MixLM, name: str, folder: Path) -> None:
    encoder, part = model.item_encoder, model.readers[name]
    if name == "item_encoder":
        graph: nn.Module = ItemEncoderGraph(model)
        given = {"ids": torch.tensor(encoder.document_ids(TEXTS[:1]))}
        free, outputs = [[1]], ["tokens", "states"]
    else:
        graph = RankerGraph(model)
        given = {
            "prefix": torch.tensor(model.ranker.prompt.ids([QUERY])[0]),
            "tokens": torch.randn(3, model.config.tokens + 1, encoder.token_size),
        }
        if model.config.residual != "none":
            given["states"] = torch.randn(len(encoder.query_ids([QUERY])[0]), encoder.hidden_size)
        free, outputs = [[0], [0, 1], [0]][: len(given)], ["log_odds"]
    try:
        write_graph(graph, given, free, outputs, folder / GRAPH.format(name))
    except OnnxExporterError as error:
        (reason, *_) = str(error.__cause__ or error).strip().splitlines()
        raise InputError(
            f"{model.name} cannot be exported: PyTorch's exporter fails for its {name.replace('_', ' ')}, "
            f"{type(part.backbone).__name__} ({reason})"
        ) from None


def _check(model: MixLM, written: OnnxMixLM) -> None:
    """Raises InputError if the exported model computes something else."""
    tokens, reference = model.encode(CHECKED_TEXTS), ReferenceScorer(model)
    pairs = [("embedding tokens", written.encode(CHECKED_TEXTS), tokens)]
    for query in CHECKED_QUERIES:
        for some in (tokens, tokens[:1, -1:]):
            pairs.append(
                ("log-odds", written.score(query, some), reference.score(query, torch.from_numpy(some)).numpy())
            )
    for what, found, expected in pairs:
        off = float(np.abs(found - expected).max())
        if not off <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise InputError(f"{model.name} cannot be exported: its {what} in ONNX Runtime are off by {off:.2g}")
