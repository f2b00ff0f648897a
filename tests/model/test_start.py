"""A new MixLM ranks like the embedding model that it starts from, and refuses what it cannot use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    ElectraConfig,
    ElectraModel,
    FNetConfig,
    FNetModel,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    StableLmConfig,
    StableLmForCausalLM,
)

from mixlm_rerank import Document, MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer, ReferenceScorer, SharedPrefixScorer

QUERIES = ["a dog barks", "what is bread made of?"]
LENGTHS = {"max_query_tokens": 64, "max_document_tokens": 64}

# mode of the Pooling module, architecture, what the tokenizer puts around a text
MODELS = [
    ("mean", "bert", "[CLS] $A [SEP]"),
    ("mean", "modernbert", None),
    ("cls", "bert", "[CLS] $A [SEP]"),
    ("cls", "xlm-roberta", "[CLS] $A [SEP]"),
    ("lasttoken", "qwen3", "$A <eos>"),
    ("lasttoken", "llama", "[UNK] $A"),
]


@pytest.fixture
def embedder(checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., SentenceTransformer]:
    """A tiny sentence-transformers model, saved under ``tmp_path / "embedder"``."""

    def make(mode: str, architecture: str, around: str | None, **prompts: str) -> SentenceTransformer:
        source = tmp_path / "source"
        tokenizer = AutoTokenizer.from_pretrained(checkpoint(architecture))
        if around is not None:
            around = around.replace("[UNK]", "<unk>")
            special = [(piece, tokenizer.get_vocab()[piece]) for piece in around.split() if piece != "$A"]
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=around, special_tokens=special)
        for path in checkpoint(architecture).iterdir():
            (source / path.name).parent.mkdir(exist_ok=True)
            (source / path.name).write_bytes(path.read_bytes())
        tokenizer.save_pretrained(source)
        modules = [Transformer(str(source)), Pooling(64, mode), Normalize()]
        model = SentenceTransformer(modules=modules, prompts=prompts or None, device="cpu")
        model.save_pretrained(str(tmp_path / "embedder"))
        return model

    return make


def cosines(model: MixLM, documents: list[Document]) -> torch.Tensor:
    tokens = torch.from_numpy(model.encode([document.content for document in documents]))
    return torch.stack(BiEncoderScorer(model).score_batch(QUERIES, [tokens] * len(QUERIES)))


@pytest.mark.parametrize(("mode", "architecture", "around"), MODELS, ids=lambda value: str(value))
def test_it_starts_as_the_embedding_model(
    embedder: Callable[..., SentenceTransformer],
    checkpoint: Callable[..., Path],
    documents: list[Document],
    tmp_path: Path,
    mode: str,
    architecture: str,
    around: str | None,
) -> None:
    peer = embedder(mode, architecture, around)
    model = MixLM.from_backbones(tmp_path / "embedder", checkpoint(architecture), **LENGTHS)
    expected = peer.encode(QUERIES) @ peer.encode([document.content for document in documents]).T
    torch.testing.assert_close(cosines(model, documents), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_prompts_are_those_of_the_embedding_model(
    embedder: Callable[..., SentenceTransformer], documents: list[Document], tmp_path: Path
) -> None:
    peer = embedder("mean", "bert", "[CLS] $A [SEP]", query="the moon: ", document="a cat: ")
    folder = tmp_path / "embedder"
    documents = [document for document in documents if document.text != "yes"]  # a special token of this tokenizer
    texts = [document.content for document in documents]
    expected = peer.encode(QUERIES, prompt_name="query") @ peer.encode(texts, prompt_name="document").T
    model = MixLM.from_backbones(folder, folder, **LENGTHS)
    torch.testing.assert_close(cosines(model, documents), torch.from_numpy(expected), atol=1e-5, rtol=0)
    plain = MixLM.from_backbones(folder, folder, query_prompt="", document_prompt="", **LENGTHS)
    expected = peer.encode(QUERIES, prompt="") @ peer.encode(texts, prompt="").T
    torch.testing.assert_close(cosines(plain, documents), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_a_saved_model_keeps_its_pooling_and_prompts(
    embedder: Callable[..., SentenceTransformer], documents: list[Document], tmp_path: Path
) -> None:
    embedder("cls", "bert", "[CLS] $A [SEP]", query="the moon: ")
    model = MixLM.from_backbones(tmp_path / "embedder", tmp_path / "embedder", **LENGTHS)
    model.save_pretrained(tmp_path / "saved")
    found, expected = (cosines(one, documents) for one in (MixLM.from_pretrained(tmp_path / "saved"), model))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_what_the_caller_says_comes_before_the_checkpoint(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("bert")
    model = MixLM.from_backbones(
        folder, folder, pooling="cls", query_prompt="query: ", prompt="Find [CLS]{text}[SEP]", **LENGTHS
    )
    config = model.config
    assert (config.pooling, config.query_prompt, config.document_prompt) == ("cls", "query: ", "")
    assert config.prompt == "Find [CLS]{text}[SEP]"


def test_a_pooling_that_we_lack_is_named(embedder: Callable[..., SentenceTransformer], tmp_path: Path) -> None:
    embedder("max", "bert", None)
    folder = tmp_path / "embedder"
    with pytest.raises(InputError, match="pools by 'max'.*choose"):
        MixLM.from_backbones(folder, folder, **LENGTHS)
    assert MixLM.from_backbones(folder, folder, pooling="mean", **LENGTHS).config.pooling == "mean"


def test_a_layer_after_the_pooling_is_named(embedder: Callable[..., SentenceTransformer], tmp_path: Path) -> None:
    """As EmbeddingGemma has."""
    folder = tmp_path / "dense"
    model = embedder("mean", "bert", None)
    size = model.get_embedding_dimension()
    model.append(Dense(size, size))
    model.save_pretrained(str(folder))
    with pytest.raises(InputError, match="a module Dense after its pooling.*choose"):
        MixLM.from_backbones(folder, folder, **LENGTHS)
    assert MixLM.from_backbones(folder, folder, pooling="mean", **LENGTHS).config.pooling == "mean"


def test_switches_of_older_sentence_transformers_are_read(
    embedder: Callable[..., SentenceTransformer], tmp_path: Path
) -> None:
    embedder("mean", "bert", None)
    folder = tmp_path / "embedder"
    settings = {"word_embedding_dimension": 64, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert MixLM.from_backbones(folder, folder, **LENGTHS).config.pooling == "cls"


def test_a_decoder_cannot_pool_its_first_position(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="sees no text"):
        MixLM.from_backbones(checkpoint("qwen3"), checkpoint("qwen3"), pooling="cls", **LENGTHS)


def unusual(kind: str) -> PreTrainedModel:
    sizes = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    if kind == "FNet":  # mixes by a Fourier transform
        return FNetModel(FNetConfig(**sizes, intermediate_size=64, max_position_embeddings=128))
    if kind == "Mamba":  # a state space model
        return MambaForCausalLM(MambaConfig(**sizes, max_position_embeddings=128))
    if kind == "StableLm":  # its layers drop keyword arguments
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
        return StableLmForCausalLM(StableLmConfig(**sizes, **heads, max_position_embeddings=128))
    factorised = {"embedding_size": 16, "num_attention_heads": 2, "intermediate_size": 64}
    return ElectraModel(ElectraConfig(**sizes | factorised, max_position_embeddings=128))


@pytest.mark.parametrize(
    ("kind", "because"),
    [
        ("FNet", "its states are off by"),
        ("Mamba", "MambaModel cannot be a ranker"),
        ("StableLm", "StableLmModel cannot be a ranker: its layers do not hand keyword arguments on"),
        ("Electra", "ElectraModel cannot be a ranker: its input embeddings have 16 dimensions"),
    ],
)
def test_an_architecture_that_cannot_rank_is_refused_at_once(
    checkpoint: Callable[..., Path], tmp_path: Path, kind: str, because: str
) -> None:
    """They would run, and rank wrongly, or fail at the first query."""
    bert, decoder = checkpoint("bert"), checkpoint("llama")
    AutoTokenizer.from_pretrained(decoder if kind in ("Mamba", "StableLm") else bert).save_pretrained(tmp_path)
    unusual(kind).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=because):
        MixLM.from_backbones(bert, tmp_path, **LENGTHS)


@pytest.mark.parametrize(("kind", "options"), [("FNet", {}), ("Electra", {"memory_tokens": 4})])
def test_an_architecture_that_cannot_encode_is_refused_at_once(
    checkpoint: Callable[..., Path], tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    """What such an item encoder is trained on, padded, is not what it stores."""
    bert = checkpoint("bert")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    unusual(kind).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{kind}Model cannot be an item encoder: (beside|its input embeddings)"):
        MixLM.from_backbones(tmp_path, bert, **options, **LENGTHS)


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_a_decoder_that_is_not_causal_is_refused_as_a_ranker(
    checkpoint: Callable[..., Path], architecture: str
) -> None:
    """Its own forward pass, and not MixLM's code for its family, is what it must equal."""
    folder = checkpoint(architecture, is_causal=False)
    with pytest.raises(InputError, match="its attention is not causal"):
        MixLM.from_backbones(checkpoint("bert"), folder, **LENGTHS)
    MixLM.from_backbones(folder, checkpoint(architecture), **LENGTHS)  # documents are read as it reads them


@pytest.mark.parametrize("part", ["item encoder", "ranker"])
def test_a_tokenizer_with_more_tokens_than_its_model_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path, part: str
) -> None:
    good = checkpoint("bert")
    tokenizer = AutoTokenizer.from_pretrained(good)
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    unused = [f"<unused {number}>" for number in range(401 - len(tokenizer))]
    tokenizer.add_tokens(unused, special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    MixLM.from_backbones(tmp_path, tmp_path, **LENGTHS)  # read as plain characters
    tokenizer.add_tokens(["covid"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{part}: its tokenizer gives ids up to 401, .* ids below 400: after adding"):
        MixLM.from_backbones(*((tmp_path, good) if part == "item encoder" else (good, tmp_path)), **LENGTHS)


def test_beyond_the_original_length_of_longrope_no_text_is_read(checkpoint: Callable[..., Path]) -> None:
    """One long text would turn the positions of all others in its batch."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [9.0] * 8}
    folder = checkpoint("llama", rope_parameters=rope | {"original_max_position_embeddings": 40})
    lengths = {"max_query_tokens": 32, "max_document_tokens": 40}
    model = MixLM.from_backbones(folder, folder, **lengths)
    texts = [*QUERIES, "the moon " * 40]
    tokens = torch.from_numpy(model.encode(texts))
    alone = [SharedPrefixScorer(model).score(query, tokens) for query in texts]
    torch.testing.assert_close(SharedPrefixScorer(model).score_batch(texts, [tokens] * 3), alone, atol=1e-4, rtol=0)
    for name in lengths:
        with pytest.raises(InputError, match="40 positions"):
            MixLM.from_backbones(folder, folder, **lengths | {name: 41})


def test_nothing_hangs_on_the_default_dtype(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    def scores(model: MixLM) -> list[torch.Tensor]:
        tokens = torch.from_numpy(model.encode(QUERIES))
        kinds = (SharedPrefixScorer, ReferenceScorer, BiEncoderScorer)
        return [*(kind(model).score(QUERIES[0], tokens) for kind in kinds), FullTextScorer(model).score("a", QUERIES)]

    torch.set_default_dtype(torch.float64)
    try:
        model = MixLM.from_backbones(checkpoint("bert", hidden=32), checkpoint("qwen3"), residual="late", **LENGTHS)
        model.save_pretrained(tmp_path)
        found = [scores(model), scores(MixLM.from_pretrained(tmp_path))]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}
    expected = scores(MixLM.from_pretrained(tmp_path))
    torch.testing.assert_close(found, [expected, expected], atol=1e-5, rtol=0)
