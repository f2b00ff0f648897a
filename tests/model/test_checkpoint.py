"""A MixLM survives the disk, and its fingerprint says which item encoder it has."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import IndexMismatch, InputError
from mixlm_rerank.model.fast.int8 import is_int8
from mixlm_rerank.model.fingerprint import fingerprint
from mixlm_rerank.scoring import SharedPrefixScorer
from mixlm_rerank.serving.catalogue import Catalogue

ARCHITECTURES = ("bert", "modernbert", "xlm-roberta", "qwen3", "llama", "mistral")
QUERY, TEXTS = "a dog barks", ["the moon is a rock", "a cat never barks", "bread"]


def scores(model: MixLM) -> list[float]:
    return SharedPrefixScorer(model).score(QUERY, torch.from_numpy(model.encode(TEXTS))).tolist()


def assert_same(loaded: MixLM, model: MixLM) -> None:
    """The same weights to the bit. Of equal weights small products round by where in memory they happen to lie."""
    theirs, ours = loaded.state_dict(), model.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert scores(loaded) == pytest.approx(scores(model), abs=1e-4)


def fresh(checkpoint: Callable[..., Path], architecture: str = "bert", **options: object) -> MixLM:
    folder = checkpoint(architecture)
    return MixLM.from_backbones(folder, folder, **{"max_query_tokens": 64, "max_document_tokens": 64} | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_gives_the_same_scores(tiny: Callable[..., MixLM], architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture, memory_tokens=4)
    model.save_pretrained(tmp_path)
    loaded = MixLM.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded.fingerprint == model.fingerprint and loaded.config == model.config
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pkl"))
    assert model.fingerprint in (tmp_path / "README.md").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.processes
def test_a_forked_child_scores_too(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    """Of a process that has computed with two threads: the child would wait for the second one for ever."""
    tiny("bert").save_pretrained(tmp_path)
    program = (
        "import os, signal, sys, torch\n"
        "from mixlm_rerank import MixLM\n"
        "from mixlm_rerank.scoring import SharedPrefixScorer\n"
        "torch.set_num_threads(2)\n"
        "scorer, tokens = SharedPrefixScorer(MixLM.from_pretrained(sys.argv[1])), torch.rand(500, 4, 64)\n"
        "expected = scorer.score('a dog', tokens)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(60)\n"
        "    os._exit(not torch.allclose(scorer.score('a dog', tokens), expected, atol=1e-3))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    output = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert output.stdout == "0\n"


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_adapters_are_merged_when_it_is_saved(
    checkpoint: Callable[..., Path], architecture: str, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    model = fresh(checkpoint, architecture, residual="late")
    torch.nn.init.normal_(model.readout.score.weight)
    plain, targets = scores(model), ["query", "value"] if architecture == "bert" else ["q_proj", "v_proj"]
    for part in (model.item_encoder, model.ranker):
        part.backbone = peft.get_peft_model(
            part.backbone, peft.LoraConfig(target_modules=targets, init_lora_weights=False)
        )
    adapted = scores(model)
    assert adapted != pytest.approx(plain, abs=0.1)
    model.save_pretrained(tmp_path)
    assert scores(MixLM.from_pretrained(tmp_path)) == pytest.approx(adapted, abs=1e-3)
    assert scores(model) == adapted  # which still has its adapters


def test_a_projector_bridges_hidden_sizes_and_families(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = MixLM.from_backbones(
        checkpoint("bert", hidden=32), checkpoint("qwen3"), max_query_tokens=64, max_document_tokens=64
    )
    torch.nn.init.normal_(model.readout.score.weight)
    assert model.projector is not None
    assert model.encode(TEXTS).shape == (3, 4, 32)
    model.save_pretrained(tmp_path)
    assert_same(MixLM.from_pretrained(tmp_path), model)


def test_decoders_start_from_yes_minus_no(checkpoint: Callable[..., Path]) -> None:
    """Log-odds of an untrained decoder are logit(yes) - logit(no) of its own language model head."""
    from transformers import AutoModelForCausalLM

    model = fresh(checkpoint, "qwen3", residual="none")
    head = AutoModelForCausalLM.from_pretrained(checkpoint("qwen3"))
    ranker = model.ranker
    (prefix,) = ranker.prefixes([QUERY])
    (document,) = ranker.documents(["a cat"], [len(prefix)])
    sequence = torch.cat([prefix.states, document, prefix.tail])[None]
    vocabulary = ranker.tokenizer.get_vocab()
    with torch.inference_mode():
        logits = head(inputs_embeds=sequence).logits[0, -1]
        ours = model.readout(ranker([prefix], [document]))[0]
    torch.testing.assert_close(ours, logits[vocabulary["yes"]] - logits[vocabulary["no"]], atol=1e-4, rtol=0)


def test_the_fingerprint_follows_the_item_encoder_alone(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = fresh(checkpoint)
    start = model.fingerprint
    with torch.no_grad():
        next(model.ranker.backbone.parameters()).add_(1)
        model.readout.score.weight.add_(1)
    assert model.fingerprint == start  # training the ranker keeps an index valid
    with torch.no_grad():
        next(model.item_encoder.backbone.parameters())[0, 0] += 1e-3
    assert model.fingerprint != start
    assert len({fresh(checkpoint, tokens=tokens).fingerprint for tokens in (2, 3)}) == 2
    assert len({fresh(checkpoint, max_document_tokens=length).fingerprint for length in (32, 64)}) == 2


def test_the_fingerprint_survives_other_keys_in_a_configuration(checkpoint: Callable[..., Path]) -> None:
    """Which Transformers adds from release to release."""
    model, other = fresh(checkpoint), fresh(checkpoint)
    other.item_encoder.backbone.config.a_key_of_next_year = True
    assert fingerprint(other.item_encoder, other.config) == model.fingerprint


def test_an_index_with_the_fingerprint_of_release_0_1_is_accepted(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = fresh(checkpoint)
    index = TokenIndex.build([Document("d", "a dog")], model, tmp_path / "index", progress=False)
    old = replace(index.manifest, fingerprint=fingerprint(model.item_encoder, model.config, former=True))
    assert old.fingerprint != model.fingerprint
    old.check_model(model, "index")
    server = Catalogue({"other": fresh(checkpoint, tokens=2), "ours": model}, {"docs": SimpleNamespace(manifest=old)})  # type: ignore[dict-item]
    assert server.model_name(None, "docs") == "ours"
    with torch.no_grad():
        next(model.item_encoder.backbone.parameters())[0, 0] += 1e-3
    with pytest.raises(IndexMismatch):
        old.check_model(model, "index")


def test_the_fingerprint_is_computed_once_for_the_same_weights(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counted = fresh(checkpoint), []
    monkeypatch.setattr(
        "mixlm_rerank.model.network.fingerprint",
        lambda *given, **named: counted.append(1) or fingerprint(*given, **named),
    )
    first = [Reranker(model).index.manifest.fingerprint for _ in range(2)]
    assert len(counted) == 1
    with torch.no_grad():
        next(model.item_encoder.backbone.parameters()).mul_(2)
    assert model.fingerprint not in first and len(counted) == 2


def test_the_fingerprint_does_not_depend_on_the_dtype_loaded(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    model = tiny("bert")
    model.save_pretrained(tmp_path)
    for dtype in ("float32", "bfloat16", "float16", torch.bfloat16):
        assert MixLM.from_pretrained(tmp_path, dtype=dtype).fingerprint == model.fingerprint


def test_devices_and_dtypes_are_given_as_torch_has_them(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    model = MixLM.from_pretrained(tmp_path, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert (model.device, model.ranker.dtype) == (torch.device("cpu"), torch.bfloat16)
    assert is_int8(MixLM.from_pretrained(tmp_path, dtype=torch.int8))
    with pytest.raises(InputError, match="float32, bfloat16, float16 or"):
        MixLM.from_pretrained(tmp_path, dtype=torch.int16)


def test_a_full_disk_leaves_the_model_that_was_there(
    checkpoint: Callable[..., Path], tiny: Callable[..., MixLM], tmp_path: Path
) -> None:
    """A limit on the size of files stands in for it: Python ignores SIGXFSZ, so that writes past it are errors."""
    model, other = tiny("bert"), fresh(checkpoint, "qwen3")
    model.save_pretrained(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=f"cannot write the model to {tmp_path}"):
            other.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same(MixLM.from_pretrained(tmp_path), model)
    assert not (tmp_path / ".saving").exists()


@pytest.mark.processes
def test_killed_while_it_replaces_another_the_new_model_loads(
    checkpoint: Callable[..., Path], tiny: Callable[..., MixLM], tmp_path: Path
) -> None:
    """Between two renames; a file of the user's own stays."""
    new = fresh(checkpoint, tokens=2)
    tiny("bert").save_pretrained(tmp_path / "model")
    new.save_pretrained(tmp_path / "new")
    (tmp_path / "model" / "notes.txt").touch()
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from mixlm_rerank import MixLM\n"
        "replace, done = Path.replace, []\n"
        "def replace_two(self, target):\n"
        "    done.append(replace(self, target))\n"
        "    if len(done) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.replace = replace_two\n"
        "MixLM.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "new", tmp_path / "model"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert scores(MixLM.from_pretrained(tmp_path / "model")) == scores(new)
    assert (tmp_path / "model" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "no model folder"),
        ("./nothing", "no model folder"),
        ("nobody/nothing", "hub did not give"),
    ],
)
def test_a_model_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MixLM.from_pretrained(name, local_files_only=True)


def test_a_revision_is_taken_from_the_hubs_cache_and_nobody_is_asked(
    tiny: Callable[..., MixLM],
    checkpoint: Callable[..., Path],
    judge: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *rest, **options: asked.append(host) or [])
    folder = tmp_path / "models--me--tiny"
    made = {"main": tiny("bert").save_pretrained, "first": tiny("qwen3").save_pretrained}
    for number, (branch, save) in enumerate(made.items()):
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / branch).write_text(f"{number}" * 40)
        save(folder / "snapshots" / (f"{number}" * 40))
    local: Any = {"cache_dir": tmp_path, "local_files_only": True}
    assert_same(MixLM.from_pretrained("me/tiny", revision="first", **local), tiny("qwen3"))
    assert_same(MixLM.from_pretrained("me/tiny", **local), tiny("bert"))
    with pytest.raises(InputError, match="not in the local cache"):
        MixLM.from_pretrained("me/tiny", revision="second", **local)
    with pytest.raises(TypeError, match="'revison' is no argument.* revision, token"):
        MixLM.from_pretrained("me/tiny", revison="first", **local)
    for name, source in (("plain", checkpoint("bert")), ("judge", judge("bert"))):
        whole = tmp_path / f"models--me--{name}"
        (whole / "refs").mkdir(parents=True)
        (whole / "refs" / "v2").write_text("2" * 40)
        shutil.copytree(source, whole / "snapshots" / ("2" * 40))
    MixLM.from_backbones("me/plain", "me/plain", revision="v2", max_query_tokens=64, max_document_tokens=40, **local)
    MixLM.from_cross_encoder("me/judge", revision="v2", **local)
    assert not asked


def test_a_plain_checkpoint_is_refused_with_the_mend(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="mixlm-rerank model init"):
        MixLM.from_pretrained(checkpoint("bert"))


def test_a_model_of_version_0_1_loads(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    """Its configuration has format 1 and ends with the lengths: mix layer, titles, head and vectors came later."""
    model = tiny("bert", residual="late")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    later = ("mix_layer", "fixed_documents", "document_position", "title_tokens", "head", "vectors")
    old = {name: value for name, value in config.items() if name not in later} | {"format_version": 1}
    assert len(old) == len(config) - len(later)
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert_same(MixLM.from_pretrained(tmp_path), model)


def test_broken_folders_are_refused(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"tokens": 3}, "does not give its known answer"),
        ({"format_version": 99}, "format version 99"),
        ({"format_version": "1"}, "format_version must be a whole number from 1 on, not '1'"),
        ({"format_version": True}, "format_version must be a whole number from 1 on, not True"),
        ({"prompt": None}, "prompt must be a string, not None"),
        ({"tokens": "4"}, "tokens must be a whole number, not '4'"),
        ({"score_token": ""}, "no token '', the score_token"),
        ({"score_token": "[NOPE]"}, r"no token '\[NOPE\]', the score_token"),
        ({"surprise": 1}, "surprise"),
        ({"memory_tokens": 3}, r"does not fit .*'item_encoder.memory': \[0, 64\].*'item_encoder.memory': \[3, 64\]"),
        ({"prompt": "no place for a query"}, "text"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            MixLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not valid JSON"):
        MixLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    of_ranker = tmp_path / "ranker" / "config.json"
    held = json.loads(of_ranker.read_text())
    of_ranker.write_text(json.dumps(held | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(InputError, match="are quantised"):
        MixLM.from_pretrained(tmp_path)
    of_ranker.write_text(json.dumps(held))
    weights = tmp_path / "ranker" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="ranker"):
        MixLM.from_pretrained(tmp_path)


def test_checkpoints_that_cannot_be_read_are_refused(
    checkpoint: Callable[..., Path], judge: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever a library raises there."""

    def refused(folder: Path, message: str) -> None:
        for make in (lambda: MixLM.from_backbones(folder, folder), lambda: MixLM.from_cross_encoder(folder)):
            with pytest.raises(InputError, match=f"{folder}.*{message}"):
                make()

    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    refused(tmp_path / "adapter", "merge_and_unload")
    for name in ("torn", "none", "quantised", "words"):
        shutil.copytree(judge("bert"), tmp_path / name)
    weights, config = tmp_path / "torn" / "model.safetensors", tmp_path / "quantised" / "config.json"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(tmp_path / "torn", "cannot be loaded: SafetensorError")
    (tmp_path / "none" / "model.safetensors").unlink()
    refused(tmp_path / "none", "cannot be loaded: OSError")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    refused(tmp_path / "quantised", "are quantised")
    (tmp_path / "words" / "tokenizer.json").write_text("{")
    refused(tmp_path / "words", "has no tokenizer that can be read")


@pytest.mark.parametrize("part", ["item_encoder", "ranker"])
def test_weights_of_which_one_is_missing_are_refused(tiny: Callable[..., MixLM], tmp_path: Path, part: str) -> None:
    """Transformers would fill it up with random numbers."""
    tiny("bert").save_pretrained(tmp_path)
    path = tmp_path / part / "model.safetensors"
    weights = load_file(path)
    del weights[next(name for name in weights if "layer.1" in name)]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="1 weights are missing"):
        MixLM.from_pretrained(tmp_path)


def test_the_fingerprint_follows_the_architecture(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The same weights under another norm epsilon give other tokens."""
    other = tmp_path / "other"
    shutil.copytree(checkpoint("qwen3"), other)
    path = other / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.1}))
    ours, theirs = (
        MixLM.from_backbones(folder, folder, max_query_tokens=64, max_document_tokens=64)
        for folder in (checkpoint("qwen3"), other)
    )
    assert ours.fingerprint != theirs.fingerprint


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_word_embeddings_that_both_parts_have_are_saved_once(
    checkpoint: Callable[..., Path], architecture: str, tmp_path: Path
) -> None:
    model = fresh(checkpoint, architecture, residual="late")
    for name, backbone in (("item_encoder", model.item_encoder.backbone), ("ranker", model.ranker.backbone)):
        with torch.no_grad():
            last = list(backbone.parameters())[-1]
            last.add_(len(name) / 100)
    model.save_pretrained(tmp_path / "shared")
    assert_same(MixLM.from_pretrained(tmp_path / "shared"), model)
    table = model.ranker.backbone.get_input_embeddings().weight
    with torch.no_grad():
        table[7] += 1
    model.save_pretrained(tmp_path / "apart")
    assert_same(MixLM.from_pretrained(tmp_path / "apart"), model)
    shared, apart = (
        sum(weight.numel() for weight in load_file(tmp_path / name / "ranker" / "model.safetensors").values())
        for name in ("shared", "apart")
    )
    assert apart - shared == table.numel()


def test_half_is_half_the_size_and_nearly_the_same(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = fresh(checkpoint)
    torch.nn.init.normal_(model.readout.score.weight, std=0.25, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "half", half=True)
    whole, half = (
        (tmp_path / name / "item_encoder" / "model.safetensors").stat().st_size for name in ("whole", "half")
    )
    assert half < 0.6 * whole
    rounded = MixLM.from_pretrained(tmp_path / "half")
    assert rounded.fingerprint != model.fingerprint and rounded.ranker.dtype == torch.float32
    assert scores(rounded) == pytest.approx(scores(model), abs=0.05)


def test_a_model_is_asked_its_known_answer(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Weights that are not those it was saved with are found."""
    model = fresh(checkpoint)
    torch.nn.init.normal_(model.readout.score.weight, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    path = tmp_path / "item_encoder" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "layer.1.output.dense.weight" in name)
    weights[name] = weights[name] * -20
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="does not give its known answer: .* get the model again"):
        MixLM.from_pretrained(tmp_path)
    (tmp_path / "known_answer.json").unlink()
    with pytest.raises(InputError, match="known_answer.json cannot be read"):
        MixLM.from_pretrained(tmp_path)


def test_unknown_devices_and_dtypes_are_named(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    tiny("bert").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="int4"):
        MixLM.from_pretrained(tmp_path, dtype="int4")
    with pytest.raises(InputError, match="abacus"):
        MixLM.from_pretrained(tmp_path, device="abacus")


def test_architectures_of_neither_family_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(InputError, match="t5"):
        MixLM.from_backbones(tmp_path, tmp_path)
