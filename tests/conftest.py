"""Tiny random models of every supported architecture, made on the fly, and a collection to check by hand."""

from __future__ import annotations

import gc
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

# Tiny models: more threads only wait for each other. Processes that tests start inherit this, and threads wait asleep.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels are then interpreted; Triton looks once, when it is imported

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from mixlm_rerank import Document, MixLM
from mixlm_rerank.cli import main
from mixlm_rerank.model.families import DecoderFamily
from mixlm_rerank.systems.collections import open_collection
from mixlm_rerank.systems.first_stages import RunFile
from mixlm_rerank.systems.workplace import Workplace

# A shell's background job is started with Ctrl-C ignored, and would pass that on to the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # where a plugin has imported torch before

BIDIRECTIONAL = ("bert", "modernbert", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v2")
CLS, SEP, EOS, PAD, UNK = "[CLS]", "[SEP]", "<eos>", "<pad>", "<unk>"

DOCUMENTS = [
    Document("d1", "A dog barks at the moon and at the mail man.", title="Dogs"),
    Document("d2", "Cats sleep all day. A cat never barks.", title="Cats"),
    Document("d3", "The moon is a rock that goes round the earth."),
    Document("d4", "Bread is baked from flour, water, salt and yeast.", title="Bread"),
    Document("d5", "yes"),
    Document("d6", "Mail is brought by a mail man, who fears the dog. " * 4, title="Mail"),
]

QUERIES = {
    "q1": "a dog barks at the moon",
    "q2": "cats and the mail man",
    "q3": "bread",
    "q4": "zebra",
    "q5": "who fears the dog",
    "q6": "what is round and goes round the earth all day",
    "q7": "yes",
}
JUDGMENTS = {
    "q1": {"d1": 2, "d3": 1, "d6": 0},
    "q2": {"d2": 1, "d6": 1},
    "q3": {"d4": 1},
    "q4": {"d5": 1},
    "q5": {"d6": 2, "d1": 1, "d2": 1},
    "q6": {"d3": 1},
    "q7": {"d5": 1, "d1": 0},
}


def pytest_collection_finish() -> None:
    """What the tests have imported stays: the collector need not look at all of it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def mixlm() -> Callable[[str], Done]:
    """``mixlm("index info tokens")`` runs the command of that line."""
    return _run


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return list(DOCUMENTS)


@pytest.fixture(scope="session")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BEIR folder ``tiny`` of these documents and queries; split dev holds q1 to q3.

    ``run.trec`` has all documents as candidates, each query's in another order; none for q4.
    """
    folder = tmp_path_factory.mktemp("collections") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": document.docid, "title": document.title, "text": document.text} for document in DOCUMENTS]
    queries = [{"_id": qid, "text": text} for qid, text in QUERIES.items()]
    for name, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, qids in (("test", list(JUDGMENTS)), ("dev", ["q1", "q2", "q3"])):
        judged = [f"{qid}\t{docid}\t{grade}\n" for qid in qids for docid, grade in JUDGMENTS[qid].items()]
        (folder / "qrels" / f"{split}.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *judged]))
    lines = [
        f"{qid} Q0 {docid} {rank} {(7 - rank) ** 1.5:.3f} bm25\n"
        for turn, qid in enumerate(QUERIES)
        for rank, docid in enumerate(_turned([document.docid for document in DOCUMENTS], turn), 1)
        if qid != "q4"
    ]
    (folder / "run.trec").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def cross_encoder(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``cross_encoder(labels=1)``: the folder of a tiny random CrossEncoder of sentence-transformers.

    Keywords go into the configuration of its BERT.
    """
    made: dict[str, Path] = {}

    def make(labels: int = 1, **settings: object) -> Path:
        key = f"{labels}-{sorted(settings.items())}"
        if key not in made:
            from sentence_transformers import CrossEncoder

            made[key] = tmp_path_factory.mktemp("peers") / f"judge-{labels}"
            torch.manual_seed(2)
            CrossEncoder(str(checkpoint("bert", **settings)), num_labels=labels).save_pretrained(str(made[key]))
        return made[key]

    return make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``checkpoint("qwen3")``: the folder of a tiny random model of that architecture with its tokenizer.

    ``hidden`` is its size; other keywords go into the architecture's configuration.
    """
    made: dict[str, Path] = {}

    def make(architecture: str, hidden: int = 64, **settings: object) -> Path:
        key = f"{architecture}-{hidden}-{sorted(settings.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp(architecture)
            _tokenizer(architecture).save_pretrained(folder)
            torch.manual_seed(0)
            _model(architecture, hidden, settings).save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def judge(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``judge("bert")``: the folder of a tiny random cross-encoder; a decoder's says yes or no.

    Keywords go into the configuration.
    """
    made: dict[str, Path] = {}

    def make(architecture: str = "bert", **settings: Any) -> Path:
        if architecture not in BIDIRECTIONAL:
            return checkpoint(architecture, **settings)
        key = f"{architecture}-{sorted(settings.items())}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"judge-{architecture}")
            given = ["token_type_ids"] if architecture in ("bert", "electra") else []
            names = ["input_ids", "attention_mask", *given]
            tokenizer = AutoTokenizer.from_pretrained(checkpoint(architecture), model_input_names=names)
            pieces = [(token, tokenizer.get_vocab()[token]) for token in (CLS, SEP)]
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B:1 {SEP}:1", special_tokens=pieces
            )
            tokenizer.save_pretrained(made[key])
            config = AutoConfig.from_pretrained(checkpoint(architecture), **{"num_labels": 1} | settings)
            torch.manual_seed(3)
            AutoModelForSequenceClassification.from_config(config).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def mixed(judge: Callable[..., Path]) -> Callable[..., MixLM]:
    """``mixed("bert", mix_layer=1)``: a MixLM cut out of a tiny cross-encoder. Do not change it."""
    made: dict[str, MixLM] = {}

    def make(architecture: str = "bert", **options: object) -> MixLM:
        key = f"{architecture}-{sorted(options.items())}"
        if key not in made:
            options = {"mix_layer": 1, "tokens": 4} | options
            made[key] = MixLM.from_cross_encoder(judge(architecture), **options)  # type: ignore[arg-type]
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny(checkpoint: Callable[..., Path]) -> Callable[..., MixLM]:
    """``tiny("bert", tokens=4)``: a MixLM of one architecture, with a readout that is not zero. Do not change it.

    Log-odds lie within a few units, as those of real models do: what rounding does to them stays far below 1e-4.
    """
    made: dict[str, MixLM] = {}

    def make(architecture: str = "bert", **options: object) -> MixLM:
        key = f"{architecture}-{sorted(options.items())}"
        if key not in made:
            folder = checkpoint(architecture)
            options = {"max_query_tokens": 64, "max_document_tokens": 40} | options
            encoder = None if "vectors" in options else folder
            model = MixLM.from_backbones(encoder, folder, **options)  # type: ignore[arg-type]
            torch.manual_seed(1)
            torch.nn.init.normal_(model.readout.score.weight, std=0.25)
            made[key] = model
        return made[key]

    return make


@pytest.fixture(scope="session")
def fresh(checkpoint: Callable[..., Path]) -> Callable[..., MixLM]:
    """``fresh("bert")``: a tiny MixLM of one's own, to be trained."""

    def make(architecture: str = "bert", **options: object) -> MixLM:
        folder = checkpoint(architecture, **{"hidden_dropout_prob": 0.0} if architecture == "bert" else {})
        options = {"max_query_tokens": 64, "max_document_tokens": 40} | options
        torch.manual_seed(1)
        encoder = None if "vectors" in options else folder
        return MixLM.from_backbones(encoder, folder, **options)  # type: ignore[arg-type]

    return make


def _run(line: str) -> Done:
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["mixlm-rerank", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def _turned(docids: list[str], turn: int) -> list[str]:
    """Another order for each turn."""
    return [*docids[turn % 6 :], *docids[: turn % 6]][:: 1 if turn % 2 else -1]


def _tokenizer(architecture: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[PAD, UNK, CLS, SEP, EOS, "yes", "no"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompt = DecoderFamily().prompt(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    tokenizer.train_from_iterator([prompt, *(document.content for document in DOCUMENTS)], trainer)
    special = {"cls_token": CLS, "sep_token": SEP} if architecture in BIDIRECTIONAL else {"eos_token": EOS}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, **special)


def _model(architecture: str, hidden: int, settings: dict[str, object]) -> torch.nn.Module:
    shared = {
        "vocab_size": 400,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,  # large, so that scores differ and masks matter
        "pad_token_id": 0,
    }
    if architecture == "bert":
        return BertModel(BertConfig(**shared | settings))
    if architecture == "xlm-roberta":  # counts positions from padding_idx + 1
        return XLMRobertaModel(XLMRobertaConfig(**shared | {"type_vocab_size": 1} | settings))
    if architecture == "electra":
        return ElectraModel(ElectraConfig(**shared | {"embedding_size": hidden} | settings))
    if architecture == "mpnet":
        return MPNetModel(MPNetConfig(**shared | settings))
    if architecture == "deberta-v2":  # as of version 3
        relative = {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
        terms = {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        return DebertaV2Model(DebertaV2Config(**shared | {"type_vocab_size": 0} | relative | terms | settings))
    if architecture == "distilbert":
        sizes = {"dim": hidden, "hidden_dim": 2 * hidden, "n_layers": 3, "n_heads": 4}
        kept = {name: shared[name] for name in ("vocab_size", "max_position_embeddings", "initializer_range")}
        return DistilBertModel(DistilBertConfig(**kept | {"pad_token_id": 0} | sizes | settings))
    if architecture == "modernbert":
        # a window of 8 positions: shorter than a query and a document
        tokens = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        windows = {"local_attention": 8, "global_attn_every_n_layers": 2}
        return ModernBertModel(ModernBertConfig(**shared | tokens | windows | settings))
    shared |= {"num_key_value_heads": 2, "eos_token_id": 4, "bos_token_id": None}
    if architecture == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**shared | {"head_dim": hidden // 4} | settings))
    if architecture == "mistral":  # a window in every layer, and no layer types
        return MistralForCausalLM(MistralConfig(**shared | {"sliding_window": 8} | settings))
    if architecture == "gemma2":
        bounded = {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": hidden // 4, "head_dim": hidden // 4}
        bounded |= {"final_logit_softcapping": None, "sliding_window": 8}
        return Gemma2ForCausalLM(Gemma2Config(**shared | bounded | settings))
    if architecture == "gpt-oss":
        experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": hidden // 4, "sliding_window": 8}
        plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
        return GptOssForCausalLM(GptOssConfig(**shared | experts | plain | settings))
    return LlamaForCausalLM(LlamaConfig(**shared | settings))


@pytest.fixture
def work(beir: Path, tmp_path: Path) -> Workplace:
    """The tiny collection, and a new folder for it."""
    return Workplace(open_collection(beir), tmp_path / "work", tmp_path / "work", progress=False)


@pytest.fixture(scope="session")
def stage(beir: Path) -> RunFile:
    """All six documents for each query, none for q4."""
    return RunFile(beir / "run.trec")
