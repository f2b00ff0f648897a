"""The fingerprint: what an item encoder's embedding tokens depend on, in 16 hexadecimal digits."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from .config import MixLMConfig
from .item_encoder import ItemEncoder

__all__ = ["fingerprint", "weights_hash"]

# Raise when the code comes to give other tokens for the same weights (a change of pooling, say).
ENCODING_VERSION = 3


def fingerprint(encoder: ItemEncoder, config: MixLMConfig) -> str:
    """Hash of the item encoder's weights (as float32), tokenizer, template, pooling and budget.

    The ranker is left out on purpose: training it further keeps a token index valid.
    """
    digest = hashlib.sha256()
    tokenizer = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    for state in ("padding", "truncation"):  # call state, not identity
        tokenizer.pop(state, None)
    settings = {
        "encoding": ENCODING_VERSION,
        "tokens": config.tokens,
        "pooling": config.pooling,
        "memory_tokens": config.memory_tokens,
        "template": config.template,
        "document_prompt": config.document_prompt,
        "max_document_tokens": config.max_document_tokens,
        "tokenizer": tokenizer,
        "backbone": _architecture(encoder),
    }
    if config.mix_layer:  # indexes of models without are as old as the format
        settings |= {"mix_layer": config.mix_layer, "document_position": config.document_position}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    _add_weights(digest, encoder)
    return digest.hexdigest()[:16]


def weights_hash(module: nn.Module) -> str:
    """Hash of all weights of a module, in 16 hexadecimal digits: tells a trained model from the one before."""
    digest = hashlib.sha256()
    _add_weights(digest, module)
    return digest.hexdigest()[:16]


def _add_weights(digest: hashlib._Hash, module: nn.Module) -> None:
    for name, held in sorted(module.state_dict().items()):
        for weight in held if isinstance(held, tuple) else (held,):  # int8 layers hold (weight, bias), and their dtype
            if isinstance(weight, torch.Tensor):
                plain = weight.dequantize() if weight.is_quantized else weight
                digest.update(f"{name}{tuple(plain.shape)}".encode())
                digest.update(plain.detach().to("cpu", torch.float32).contiguous().numpy().data)


def _architecture(encoder: ItemEncoder) -> dict[str, object]:
    """The backbone's configuration (heads, rotary base, epsilon ...) less what does not change a state."""
    names = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    return {key: value for key, value in encoder.backbone.config.to_dict().items() if key not in names}
