"""An exported model in the place of a MixLM: indexes, rankings, the command line, without PyTorch; and bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.data import read_run
from mixlm_rerank.errors import IndexMismatch, InputError
from mixlm_rerank.onnx import OnnxMixLM, export

ROOT = Path(__file__).parents[2]
QUERY = "what does a dog bark at?"
# Neither is installed where a model is only used.
WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'safetensors', 'huggingface_hub', 'onnx']))"
)


@pytest.fixture(scope="module")
def model(tiny: Callable[..., MixLM]) -> MixLM:
    return tiny("bert", residual="late", tokens=5)


@pytest.fixture(scope="module")
def folder(model: MixLM, exported: Callable[..., Path]) -> Path:
    return exported(model)


def test_rankings_and_indexes_are_those_of_the_model(
    model: MixLM, folder: Path, documents: list[Document], tmp_path: Path
) -> None:
    light = OnnxMixLM.from_pretrained(folder)
    index = TokenIndex.build(documents, model, tmp_path / "tokens", precision="float32", progress=False)
    hits = [document.docid for document in documents]
    expected = Reranker(model, index).rerank(QUERY, hits)
    found = Reranker(light, index).rerank(QUERY, hits)
    assert [doc.docid for doc in found] == [doc.docid for doc in expected]
    assert [doc.score for doc in found] == pytest.approx([doc.score for doc in expected], abs=1e-4)
    index.add([Document("d9", "A dog barks at night. " * 30)], light, progress=False)  # an update by the one
    other = TokenIndex.build(documents, light, tmp_path / "light", passages=True, progress=False)
    assert other.manifest.fingerprint == model.fingerprint and Reranker(model, other).rerank(QUERY, hits)
    texts = [document.content for document in documents]
    ranked = [(doc.docid, pytest.approx(doc.score, abs=1e-4)) for doc in Reranker(model).rank(QUERY, texts)]
    assert [(doc.docid, doc.score) for doc in Reranker(light).rank(QUERY, texts)] == ranked


def test_an_index_of_another_model_is_refused(
    folder: Path, tiny: Callable[..., MixLM], documents: list[Document], tmp_path: Path
) -> None:
    index = TokenIndex.build(documents, tiny("bert", tokens=2), tmp_path / "tokens", progress=False)
    with pytest.raises(IndexMismatch, match="was built by item encoder"):
        Reranker(OnnxMixLM.from_pretrained(folder), index)


def test_encoding_and_ranking_need_no_pytorch(
    model: MixLM, folder: Path, beir: Path, mixlm: Callable[[str], Any], tmp_path: Path
) -> None:
    """On the command line and by the library."""
    line = f"--topics {beir} --run {beir}/run.trec --quiet"
    program = f"""{WITHOUT}
from mixlm_rerank.cli import main
sys.argv = ["mixlm-rerank", *sys.argv[1:]]
main()"""
    for command in (
        f"index build {beir} {tmp_path}/tokens --model {folder} --precision float32 --quiet",
        f"rerank --index {tmp_path}/tokens {line} --model {folder} --output {tmp_path}/light.trec",
    ):
        done = subprocess.run([sys.executable, "-c", program, *command.split()], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    model.save_pretrained(tmp_path / "model")
    said = mixlm(f"rerank --index {tmp_path}/tokens {line} --model {tmp_path}/model --output {tmp_path}/whole.trec")
    assert said.code == 0, said.err
    light, whole = read_run(tmp_path / "light.trec"), read_run(tmp_path / "whole.trec")
    for qid, hits in whole.items():
        assert [hit.docid for hit in light[qid]] == [hit.docid for hit in hits]
        assert [hit.score for hit in light[qid]] == pytest.approx([hit.score for hit in hits], abs=1e-4)


@pytest.mark.slow
def test_the_page_holds_for_the_default_model(tmp_path: Path, mixlm: Callable[[str], Any]) -> None:
    """Its command, and its example in a process without PyTorch; the packages that it names are those that are used."""
    page = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^mixlm-rerank (model export .*)$", page, flags=re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    folder = command.split()[2]
    said = mixlm(command.replace(folder, str(tmp_path / folder), 1))
    assert said.code == 0 and "checked against PyTorch" in said.err, said.err
    loaded = "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    program = f"{WITHOUT}\n{code}\n{loaded}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    texts = json.loads(re.findall(r"texts = (\[.*?\])", code, flags=re.DOTALL)[0].replace(",\n]", "\n]"))
    expected = Reranker(MixLM.from_pretrained("default", device="cpu")).rank("what do dogs bark at?", texts)
    assert done.stdout.split() == [word for doc in expected for word in (doc.docid, f"{doc.score:.3f}")]
    (named,) = re.findall(r"^pip install (lmdb .*)$", page, flags=re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    heavy = {"torch", "transformers", "safetensors"}
    needed = {re.split("[>=]", each)[0] for each in project["dependencies"]} - heavy | {"onnxruntime", "tokenizers"}
    assert set(named.split()) == needed


def test_a_ranker_that_cannot_be_exported_is_named(
    tiny: Callable[..., MixLM], mixed: Callable[..., MixLM], tmp_path: Path
) -> None:
    models = {
        "MistralModel": tiny("mistral"),  # with a sliding window
        "ModernBertModel": tiny("modernbert"),
        "Qwen3Model, cut at layer 1,": mixed("qwen3"),
    }
    for kind, model in models.items():
        with pytest.raises(InputError, match=f"cannot be exported: its ranker is a {kind} and what can be exported is"):
            export(model, tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_another_precision_is_refused(fresh: Callable[..., MixLM], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be in float32 on the CPU"):
        export(fresh("bert").to(torch.bfloat16), tmp_path / "exported")


def test_full_texts_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="an exported model reads no full texts"):
        Reranker(OnnxMixLM.from_pretrained(folder), verify_top=3)


def test_a_cross_encoder_may_read_them(folder: Path) -> None:
    judge = SimpleNamespace(predict=lambda pairs, **options: [-len(text) for _, text in pairs])
    docs = Reranker(OnnxMixLM.from_pretrained(folder), verify_top=3, verify_with=judge).rank(
        "a dog", ["a dog barks", "a cat", "the dog sleeps all day"]
    )
    assert [doc.text for doc in docs] == ["a cat", "a dog barks", "the dog sleeps all day"]


def _without(folder: Path) -> None:
    (folder / "onnx.json").unlink()


def _torn(folder: Path) -> None:
    graph = folder / "ranker.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])


def _newer(folder: Path) -> None:
    about = json.loads((folder / "onnx.json").read_text())
    (folder / "onnx.json").write_text(json.dumps(about | {"format_version": 9}))


def _foreign(folder: Path) -> None:
    (folder / "onnx.json").write_text("[]")


def _other_tokenizer(folder: Path) -> None:
    (folder / "ranker.tokenizer.json").write_text("{}")


def _other_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"template": "[CLS]{text}"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without, "is not an exported MixLM: it has no onnx.json .*model export"),
        (_torn, r"ranker.onnx cannot be read"),
        (_newer, "has format version 9, not 1"),
        (_foreign, "onnx.json cannot be read"),
        (_other_tokenizer, "ranker.tokenizer.json cannot be read"),
        (_other_configuration, "does not give its known answer"),
    ],
)
def test_a_damaged_folder_is_named(folder: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(InputError, match=message):
        OnnxMixLM.from_pretrained(copy)


def test_a_model_that_reads_titles_is_not_exported(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="title_tokens=3.*rank with this one in PyTorch"):
        export(tiny(title_tokens=3), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_commands_say_what_an_exported_model_is_not_for(
    folder: Path, beir: Path, mixlm: Callable[[str], Any], tmp_path: Path
) -> None:
    for line, message in {
        f"model export {folder}": "exists and is not empty",
        f"model export {tmp_path}/twice --model {folder}": "was exported to ONNX",
        f"index build {beir} {tmp_path}/tokens --model {folder} --device cuda": "leave out --device and --dtype",
    }.items():
        done = mixlm(line)
        assert done.code == 2 and message in done.err, (line, done.err)
