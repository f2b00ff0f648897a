"""The fingerprint: what an item encoder's embedding tokens depend on, in 16 hexadecimal digits."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch
from torch import nn

from .config import MixLMConfig
from .item_encoder import ItemEncoder
from .ranker import Ranker

if TYPE_CHECKING:
    from .network import Network

__all__ = ["fingerprint", "weights_hash"]

# Increment when the code gives other tokens for the same weights (after a change of pooling, for example).
ENCODING_VERSION = 3

# Backbone settings that change the states without changing a weight. They are listed here, and the tokenizer is
# identified by its output, because other releases of Transformers and Tokenizers write more or other keys for the same
# model.
SETTINGS = (
    *("hidden_act", "hidden_activation", "activation", "num_attention_heads", "num_key_value_heads"),
    *("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps"),
)
TEXTS = ["Why IS the sky blue?\tNaïve Café, 3,141.59 km; don't  re-read https://example.org/a_b#1 (東京, Ωmega) 😀"]


def fingerprint(
    encoder: ItemEncoder, config: MixLMConfig, *, ranker: Ranker | None = None, former: bool = False
) -> str:
    """Hash of the item encoder's weights (as float32), tokenizer, template, pooling and budget.

    The ranker is left out on purpose: training it further keeps a token index valid. Only if it reads titles does its
    tokenizer count: an index holds their token ids. ``former``: the fingerprint of release 0.1, which hashed everything
    that the installed Transformers writes for backbone and tokenizer.
    """
    if config.vectors:  # the projector, which is trained, is part of the ranker
        return hashlib.sha256(f"{config.tokens} vectors of {config.vectors}".encode()).hexdigest()[:16]
    settings: dict[str, object] = {
        "encoding": ENCODING_VERSION,
        "tokens": config.tokens,
        "pooling": config.pooling,
        "memory_tokens": config.memory_tokens,
        "template": config.template,
        "document_prompt": config.document_prompt,
        "max_document_tokens": config.max_document_tokens,
    }
    if former:
        settings |= _written(encoder)
    else:
        vocabulary = sorted(encoder.tokenizer.get_vocab().items())
        settings |= {"vocabulary": vocabulary, "ids": encoder.document_ids(TEXTS), "backbone": _backbone(encoder)}
    if config.mix_layer:  # without one the hash stays that of older indexes
        settings |= {"mix_layer": config.mix_layer, "document_position": config.document_position}
    if ranker is not None and config.title_tokens:
        settings["titles"] = [ranker.titles(TEXTS).tolist(), sorted(ranker.tokenizer.get_vocab().items())]
    return _hash(json.dumps(settings, sort_keys=True, default=str), encoder)


def weights_hash(model: Network) -> str:
    """Hash of all weights of a model, in 16 hexadecimal digits: distinguishes a trained model from its earlier state.

    It also distinguishes a model that reads titles from one with the same weights that reads none.
    """
    titles = model.config.title_tokens
    return _hash(f"{titles} title tokens" if titles else "", model)


def _hash(settings: str, module: nn.Module) -> str:
    digest = hashlib.sha256(settings.encode())
    for name, held in sorted(module.state_dict().items()):
        for weight in held if isinstance(held, tuple) else (held,):  # int8 layers hold (weight, bias), and their dtype
            if isinstance(weight, torch.Tensor):
                plain = weight.dequantize() if weight.is_quantized else weight
                digest.update(f"{name}{tuple(plain.shape)}".encode())
                digest.update(plain.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _backbone(encoder: ItemEncoder) -> dict[str, object]:
    config = encoder.backbone.config
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
    bases = {float(kind["rope_theta"]) for kind in kinds if "rope_theta" in kind}
    known = {name: getattr(config, name, None) for name in SETTINGS}
    return {"model_type": config.model_type, "rope_theta": sorted(bases), **known}


def _written(encoder: ItemEncoder) -> dict[str, object]:
    tokenizer = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    backbone = encoder.backbone.config.to_dict()
    for key in ("padding", "truncation"):  # set by the latest call
        tokenizer.pop(key, None)
    for key in ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"):
        backbone.pop(key, None)
    return {"tokenizer": tokenizer, "backbone": backbone}
