"""A MixLM on disk: two Hugging Face checkpoints, the head, the configuration and a model card in one folder."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError
from ..folders import replacing, settle
from .assembly import N, assemble, load_tokenizer, quiet
from .card import model_card
from .config import EXPORTED, MixLMConfig
from .families import family_of, family_of_config, load_backbone
from .fast.int8 import in_int8, is_int8
from .known_answer import check_known_answer, known_answers, write_known_answer
from .network import Network
from .running import parameter_dtype, weights_to

__all__ = ["load", "save"]

ITEM_ENCODER, RANKER, CONFIG, CARD = "item_encoder", "ranker", "config.json", "README.md"
HEAD = "head.safetensors"  # readout, projector and memory tokens: all that is in neither backbone
KNOWN_ANSWER = "known_answer.json"
DEFAULT = Path(__file__).with_name("default")  # comes with the package; its card says what it was trained on


def save(model: Network, folder: Path, *, half: bool = False) -> None:
    """See :meth:`MixLM.save_pretrained`. All is written to a draft and read back before it replaces anything."""
    if is_int8(model):
        raise InputError("a model in int8 cannot be written: load it in float32")
    try:
        with replacing(folder) as draft:
            with quiet():
                _save_backbones(model, draft, torch.float16 if half else torch.float32)
            save_file(_head_state(model), draft / HEAD)
            model.config.save(draft / CONFIG)
            written = _read(type(model), draft)
            write_known_answer(known_answers(written), draft / KNOWN_ANSWER)
            (draft / CARD).write_text(model_card(written), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the model to {folder}: {error}") from None
    model.name = str(folder)


def load(
    make: type[N],
    name: str | Path,
    *,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    title_tokens: int | None,
    hub: dict[str, Any],
) -> N:
    """See :meth:`MixLM.from_pretrained`."""
    int8 = str(dtype).removeprefix("torch.") == "int8"
    device = str(device or ("cuda" if torch.cuda.is_available() and not int8 else "cpu"))
    wanted = (
        torch.float32
        if int8
        else parameter_dtype(dtype) or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    )
    folder = DEFAULT if str(name) == "default" else _folder(str(name), hub)
    settle(folder)
    if (folder / EXPORTED).exists():
        raise InputError(
            f"{folder} was exported to ONNX: OnnxMixLM.from_pretrained reads it, and of the commands index, rerank and "
            "search. Here give the model that it was exported from"
        )
    model = _read(make, folder, title_tokens)
    check_known_answer(lambda: known_answers(model), folder / KNOWN_ANSWER)
    model.name = str(name)
    if wanted != torch.float32:
        # the item encoder stays float32: its tokens, and so its fingerprint, are the same on every device
        weights_to(model.ranker, wanted)
        if model.projector is not None:
            weights_to(model.projector, wanted)
    try:
        model = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:  # torch: unknown device, no CUDA
        raise InputError(f"cannot use device {device!r}: {error}") from None
    return in_int8(model) if int8 else model


def _folder(name: str, hub: dict[str, Any]) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"no model folder at {name!r} (expected a folder, a hub id like 'user/model', or 'default')")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, **hub))
    except Exception as error:  # the hub client raises many kinds; all mean "not available from here"
        local = hub.get("local_files_only")
        reason = "offline, and it is not in the local cache" if local else str(error).partition("\n")[0]
        raise InputError(
            f"no folder {name!r}, and the Hugging Face hub did not give a model of that name ({reason})"
        ) from None


def _save_backbones(model: Network, folder: Path, dtype: torch.dtype) -> None:
    """Word embeddings that both have, because they were kept in training, are written once: half of a small model."""
    backbones = {name: _merged(part.backbone) for name, part in model.readers.items()}
    tables = [cast(torch.Tensor, backbone.get_input_embeddings().weight) for backbone in backbones.values()]
    first, last = tables[0], tables[-1]
    shared = len(backbones) > 1 and first.shape == last.shape and torch.equal(first.cpu(), last.cpu())
    for name, backbone in backbones.items():
        left_out = last.data_ptr() if shared and name == RANKER else None
        state = {key: weight for key, weight in backbone.state_dict().items() if weight.data_ptr() != left_out}
        kept = {key: weight.to(dtype) if weight.is_floating_point() else weight for key, weight in state.items()}
        backbone.save_pretrained(folder / name, state_dict=kept)
        model.readers[name].tokenizer.save_pretrained(folder / name)


def _merged(backbone: Any) -> PreTrainedModel:
    """A copy with PEFT's adapters merged in, if it has any: saved by themselves they would lack the base model."""
    if "peft" not in sys.modules:
        return cast(PreTrainedModel, backbone)
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(module, BaseTunerLayer) for module in backbone.modules()):
        return cast(PreTrainedModel, backbone)
    plain = copy.deepcopy(backbone)
    for name, module in list(plain.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    return cast(PreTrainedModel, plain.get_base_model() if hasattr(plain, "get_base_model") else plain)


def _read(make: type[N], folder: Path, title_tokens: int | None = None) -> N:
    config = MixLMConfig.load(folder / CONFIG)
    if title_tokens is not None:
        config = replace(config, title_tokens=title_tokens)
    encoder = encoder_tokenizer = table = None
    if not config.vectors:
        encoder, encoder_tokenizer = _saved_part(folder / ITEM_ENCODER, final_norm=not config.mix_layer)
        table = cast(torch.Tensor, encoder.get_input_embeddings().weight)
    backbone, ranker_tokenizer = _saved_part(folder / RANKER, table)
    family = family_of_config(backbone.config, str(folder))
    model = assemble(make, config, encoder, encoder_tokenizer, backbone, ranker_tokenizer, family)
    _load_head(model, folder / HEAD)
    return model.eval()


def _saved_part(
    source: Path, word_embeddings: torch.Tensor | None = None, *, final_norm: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    family_of(str(source), local_files_only=True)  # says what cannot be loaded, and why
    with quiet():
        # float32 whatever was saved: fp16 files are for size, and widening them is exact
        backbone = load_backbone(
            str(source),
            word_embeddings=word_embeddings,
            final_norm=final_norm,
            local_files_only=True,
            dtype=torch.float32,
        )
    return backbone, load_tokenizer(str(source), local_files_only=True)


def _head_state(model: Network) -> dict[str, torch.Tensor]:
    return {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith(("item_encoder.backbone.", "ranker.backbone."))
    }


def _load_head(model: Network, path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    expected = _head_state(model)
    held, wanted = ({name: list(weight.shape) for name, weight in part.items()} for part in (state, expected))
    if held != wanted:
        raise InputError(f"{path} does not fit config.json: it holds {held}, expected {wanted}")
    model.load_state_dict(state, strict=False)
