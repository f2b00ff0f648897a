"""Which architectures can be what: asked of tiny random models, and printed as the table of docs/models.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer, SharedPrefixScorer

TABLE = Path(__file__).parents[2] / "docs" / "models.md"
SIZES = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
DECODER = {"num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 4}
HEADS = {**DECODER, "head_dim": 16}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "electra": {"embedding_size": 32},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    "mpnet": {},
    "deberta-v2": {"type_vocab_size": 0, "position_buckets": 8, "share_att_key": True, **DISENTANGLED},
    "deberta": DISENTANGLED,
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "local_attention": 8},
    "eurobert": {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    "albert": {"embedding_size": 16},
    "fnet": {},
    "qwen2": DECODER,
    "qwen3": HEADS,
    "qwen3_moe": {**HEADS, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32},
    "llama": HEADS,
    "mistral": HEADS,
    "phi3": DECODER,
    "smollm3": DECODER,
    "olmo2": DECODER,
    "gemma": HEADS,
    "gemma2": {**HEADS, "sliding_window": 8, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**HEADS, "sliding_window": 8},
    "gpt_oss": {**HEADS, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8},
    "gpt2": {"n_inner": 64, "bos_token_id": None, "eos_token_id": 4},
    "stablelm": {**DECODER, "num_key_value_heads": 2},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
}
QUERY, TEXTS = "a dog barks at the moon", ["the moon is a rock", "a cat never barks at the mail man", "bread"]
LENGTHS = {"max_query_tokens": 64, "max_document_tokens": 40}


@pytest.fixture(scope="module")
def table(checkpoint: Callable[..., Path], judge: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A row for each kind: its name, and yes or why not, as item encoder, as ranker, and cut from a cross-encoder."""
    rows, bert = [], checkpoint("bert")
    for kind, settings in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        causal = kind in CAUSAL and kind not in MASKED
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint("llama") if causal else judge("mpnet"))
        tokenizer.save_pretrained(folder)
        config = AutoConfig.for_model(kind, **SIZES | {"num_labels": 1} | settings)
        torch.manual_seed(3)
        whole = AutoModelForCausalLM if causal else AutoModelForSequenceClassification
        whole.from_config(config).save_pretrained(folder)
        uses = (
            partial(MixLM.from_backbones, folder, bert, **LENGTHS),
            partial(MixLM.from_backbones, bert, folder, **LENGTHS),
            partial(MixLM.from_cross_encoder, folder, mix_layer=1, tokens=2),
        )
        rows.append([kind, *(_answer(make) for make in uses)])
    head = "| model type | item encoder | ranker | cut from a cross-encoder |\n|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _answer(make: Callable[[], MixLM]) -> str:
    """Whether a model can be made, and then scores alike in all ways."""
    try:
        model = make()
    except InputError as error:
        return f"no: {_cause(str(error))}"
    torch.manual_seed(1)
    torch.nn.init.normal_(model.readout.score.weight, std=0.25)
    tokens = torch.from_numpy(model.encode(TEXTS))
    expected = ReferenceScorer(model).score(QUERY, tokens)
    torch.testing.assert_close(SharedPrefixScorer(model).score(QUERY, tokens), expected, atol=1e-4, rtol=0)
    alone = torch.cat([FullTextScorer(model).score(QUERY, [text]) for text in TEXTS])
    torch.testing.assert_close(FullTextScorer(model).score(QUERY, TEXTS), alone, atol=1e-4, rtol=0)
    return "yes"


def _cause(message: str) -> str:
    """Why not, in the words of the error, without what is particular to this model."""
    cause = re.split(r"cannot be (?:an item encoder|a ranker)[: ]|off by \d+%, so ", message)[-1].replace("'", "")
    if "is not a cross-encoder that MixLM can be cut out of" in cause:
        return "its head is not known"
    if "MixLM needs a decoder" in cause:
        return "neither a decoder nor an encoder"
    cause = re.sub(r"/\S+ bounds", "it bounds", re.sub(r"have \d+ dimensions", "are narrower than its states", cause))
    return re.split(r"[;,]|: take| \(docs|, by which", cause)[0].strip()


def test_the_table_of_the_docs_is_what_the_models_do(table: str) -> None:
    assert table in TABLE.read_text(encoding="utf-8"), f"docs/models.md should have this table:\n{table}"
