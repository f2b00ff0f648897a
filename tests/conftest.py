"""Tiny random models of every supported architecture, made on the fly, and a collection to check by hand."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from mixlm_rerank import Document, MixLM
from mixlm_rerank.model.families import DecoderFamily

# A shell's background job is started with Ctrl-C ignored, and would pass that on to the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # tiny models: more threads only wait for each other

CLS, SEP, EOS, PAD, UNK = "[CLS]", "[SEP]", "<eos>", "<pad>", "<unk>"

DOCUMENTS = [
    Document("d1", "A dog barks at the moon and at the mail man.", title="Dogs"),
    Document("d2", "Cats sleep all day. A cat never barks.", title="Cats"),
    Document("d3", "The moon is a rock that goes round the earth."),
    Document("d4", "Bread is baked from flour, water, salt and yeast.", title="Bread"),
    Document("d5", "yes"),
    Document("d6", "Mail is brought by a mail man, who fears the dog. " * 4, title="Mail"),
]


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    return list(DOCUMENTS)


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
def tiny(checkpoint: Callable[..., Path]) -> Callable[..., MixLM]:
    """``tiny("bert", tokens=4)``: a MixLM of one architecture, with a readout that is not zero. Do not change it."""
    made: dict[str, MixLM] = {}

    def make(architecture: str = "bert", **options: object) -> MixLM:
        key = f"{architecture}-{sorted(options.items())}"
        if key not in made:
            folder = checkpoint(architecture)
            options = {"max_query_tokens": 64, "max_document_tokens": 40} | options
            model = MixLM.from_backbones(folder, folder, **options)  # type: ignore[arg-type]
            torch.manual_seed(1)
            torch.nn.init.normal_(model.readout.score.weight)
            made[key] = model
        return made[key]

    return make


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
    bidirectional = architecture in ("bert", "modernbert", "xlm-roberta")
    special = {"cls_token": CLS, "sep_token": SEP} if bidirectional else {"eos_token": EOS}
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
    return LlamaForCausalLM(LlamaConfig(**shared | settings))
