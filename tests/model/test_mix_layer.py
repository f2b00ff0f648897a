"""Embedding tokens that enter the ranker at a middle layer; a MixLM cut out of a cross-encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers import AlbertForSequenceClassification as AlbertClassifier
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from mixlm_rerank import Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.ranker import Prefix
from mixlm_rerank.scoring import FullTextScorer, ReferenceScorer, SharedPrefixScorer

DECODERS = ("qwen3", "llama", "mistral", "gemma2", "gpt-oss")
CLASSIFIERS = ("bert", "modernbert", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v2")
QUERY, TEXTS = "a dog barks at the moon", ["the moon is a rock", "a cat never barks at the mail man", "bread"]


@pytest.mark.parametrize(
    ("architecture", "fixed"),
    [*((name, False) for name in (*CLASSIFIERS, *DECODERS)), *((name, True) for name in CLASSIFIERS)],
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 4)),
    mix_layer=st.integers(1, 2),
    positions=st.integers(1, 300),
)
def test_shared_prefix_equals_reference(
    mixed: Callable[..., MixLM],
    architecture: str,
    fixed: bool,
    query: str,
    shape: tuple[int, int],
    mix_layer: int,
    positions: int,
) -> None:
    model = mixed(architecture, mix_layer=mix_layer, fixed_documents=fixed)
    width = model.item_encoder.token_size
    assert width == (64 if architecture in DECODERS else 65)  # the last for attention logits
    tokens = torch.randn(*shape, width, generator=torch.Generator().manual_seed(sum(shape)))
    expected = ReferenceScorer(model).score(query, tokens)
    fast = SharedPrefixScorer(model, positions=positions)
    torch.testing.assert_close(fast.score(query, tokens), expected, atol=1e-4, rtol=0)
    # prefixes of different lengths, and two of the same one, in the company of each other
    first, _, last = fast.score_batch([query, QUERY, query], [tokens[:1], tokens[:2], tokens])
    torch.testing.assert_close(first, expected[:1], atol=1e-4, rtol=0)
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", CLASSIFIERS)
@pytest.mark.parametrize("mix_layer", [1, 2])
def test_full_text_mode_is_the_cross_encoder(
    mixed: Callable[..., MixLM], judge: Callable[..., Path], architecture: str, mix_layer: int
) -> None:
    whole = AutoModelForSequenceClassification.from_pretrained(judge(architecture)).eval()
    tokenizer = AutoTokenizer.from_pretrained(judge(architecture))
    longest = {"xlm-roberta": 127, "mpnet": 126}.get(architecture, 128)  # these count positions from padding_idx + 1
    texts = [*TEXTS, "a long text about the moon and the dog " * 20]  # is cut at the same place
    pairs = tokenizer([QUERY] * 4, texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    assert pairs["input_ids"].shape[1] == longest
    with torch.inference_mode():
        expected = whole(**pairs).logits[:, 0]
    found = FullTextScorer(mixed(architecture, mix_layer=mix_layer)).score(QUERY, texts)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1


@pytest.mark.parametrize("architecture", CLASSIFIERS)
@pytest.mark.parametrize("mix_layer", [1, 2])
def test_states_of_the_pair_itself_give_the_cross_encoders_answer(
    mixed: Callable[..., MixLM], judge: Callable[..., Path], architecture: str, mix_layer: int
) -> None:
    """From the mix layer on query and document see each other: nothing is lost there."""
    whole = AutoModelForSequenceClassification.from_pretrained(judge(architecture)).eval()
    tokenizer, model = AutoTokenizer.from_pretrained(judge(architecture)), mixed(architecture, mix_layer=mix_layer)
    (alone,) = model.ranker.prefixes([QUERY])
    for text in TEXTS:
        with torch.inference_mode():
            output = whole(**tokenizer(QUERY, text, return_tensors="pt"), output_hidden_states=True)
            states = output.hidden_states[mix_layer][0]
            prefix = Prefix(states[: len(alone)], alone.tail)
            for found in (
                model.ranker([prefix], [states[len(alone) :]]),
                *model.ranker.forward_packed([prefix], [states[None, len(alone) :]]),
            ):
                torch.testing.assert_close(model.readout(found), output.logits[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["qwen3", "mistral", "gemma2", "gpt-oss"])
def test_full_text_mode_of_a_decoder_is_its_yes_and_no(
    mixed: Callable[..., MixLM], judge: Callable[..., Path], architecture: str
) -> None:
    # eager: with soft caps and sinks, which sdpa leaves out
    head = AutoModelForCausalLM.from_pretrained(judge(architecture), attn_implementation="eager")
    model = mixed(architecture)
    tokenizer = model.ranker.tokenizer
    before, after = model.config.prefix.replace("{text}", QUERY), model.config.suffix
    vocabulary = tokenizer.get_vocab()
    for text, found in zip(TEXTS, FullTextScorer(model).score(QUERY, TEXTS).tolist(), strict=True):
        ids = [tokenizer.encode(part, add_special_tokens=False) for part in (before + text, after)]
        with torch.inference_mode():
            logits = head(torch.tensor([sum(ids, [])])).logits[0, -1]
        assert found == pytest.approx(float(logits[vocabulary["yes"]] - logits[vocabulary["no"]]), abs=1e-4)


@pytest.fixture
def qwen_reranker(checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A tiny random checkpoint of the shape of Qwen3-Reranker, with a tokenizer that splits as Qwen's does."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated")
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_alone])
    special = ["<pad>", "<|im_start|>", "<|im_end|>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    line = "<Query>: what is it?\n<Document>: yes, no yes no. What is it?\n yes\nno\n"
    tokenizer.train_from_iterator([line] * 9, trainer)
    AutoModelForCausalLM.from_pretrained(checkpoint("qwen3", max_position_embeddings=512)).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("query", ["what is it?", "what is it", " yes!!", "no\n"])
def test_full_text_mode_is_what_the_card_of_qwen3_reranker_does(qwen_reranker: Path, query: str) -> None:
    model = MixLM.from_cross_encoder(qwen_reranker)
    texts = ["what is it?", "yes, no", "(no) yes. ", "What is it?\n yes no"]
    found = FullTextScorer(model).score(query, texts)

    # from here on as https://huggingface.co/Qwen/Qwen3-Reranker-0.6B has it
    tokenizer = AutoTokenizer.from_pretrained(qwen_reranker)
    causal = AutoModelForCausalLM.from_pretrained(qwen_reranker).eval()
    task = "Given a web search query, retrieve relevant passages that answer the query"
    system = (
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that "
        'the answer can only be "yes" or "no".'
    )
    prefix = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    before, after = (tokenizer.encode(part, add_special_tokens=False) for part in (prefix, suffix))
    for text, log_odds in zip(texts, found.tolist(), strict=True):
        pair = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {text}"
        ids = [*before, *tokenizer(pair, return_attention_mask=False)["input_ids"], *after]
        with torch.inference_mode():
            last = causal(torch.tensor([ids])).logits[0, -1]
        answers = last[[tokenizer.convert_tokens_to_ids("no"), tokenizer.convert_tokens_to_ids("yes")]]
        probability = float(answers.log_softmax(dim=0)[1].exp())
        assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(probability, abs=1e-4)
    assert found.std() > 0.1


def test_the_example_of_the_docs_runs(qwen_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    turn = "<|im_start|>{{ messages[0].role }}\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant:"
    tokenizer = AutoTokenizer.from_pretrained(qwen_reranker)
    tokenizer.chat_template = turn
    tokenizer.save_pretrained(qwen_reranker)
    monkeypatch.chdir(qwen_reranker.parent)
    exec(code.replace("Qwen/Qwen3-0.6B", str(qwen_reranker)), {})
    saved = MixLM.from_pretrained("cut")
    assert saved.config.suffix.endswith("yes or no.<|im_end|>\n<|im_start|>assistant:")
    assert FullTextScorer(saved).score(QUERY, TEXTS).std() > 0.1


def test_other_answers_than_yes_and_no(qwen_reranker: Path) -> None:
    """BGE's rerankers of language models have the logit of one word alone as their score."""
    prompt = "A: {text}\nB: {document}\nDoes B answer A?"
    model = MixLM.from_cross_encoder(qwen_reranker, prompt=prompt, answers=["W"])
    tokenizer, causal = model.ranker.tokenizer, AutoModelForCausalLM.from_pretrained(qwen_reranker).eval()
    ids = [*tokenizer.encode("A: it?\nB: yes no"), *tokenizer.encode("\nDoes B answer A?")]
    with torch.inference_mode():
        logit = causal(torch.tensor([ids])).logits[0, -1, tokenizer.convert_tokens_to_ids("W")]
    assert FullTextScorer(model).score("it?", ["yes no"]).item() == pytest.approx(float(logit), abs=1e-4)
    for answers in (["relevant", "no"], ["yes", "yes"], [], ["yes", "no", "yes"]):
        with pytest.raises(InputError, match="one word or two, each one token"):
            MixLM.from_cross_encoder(qwen_reranker, answers=answers)
    with pytest.raises(InputError, match="answers must be a list of strings"):
        MixLM.from_cross_encoder(qwen_reranker, answers="no")
    for prompt in ("{text} {text} {document}", "{document} {text}", "{text}"):
        with pytest.raises(InputError, match="must have {text} and then {document}"):
            MixLM.from_cross_encoder(qwen_reranker, prompt=prompt)


@pytest.mark.parametrize("architecture", ["gemma2", "gpt-oss"])
def test_padding_beyond_a_window_does_no_harm(mixed: Callable[..., MixLM], architecture: str) -> None:
    scorer = FullTextScorer(mixed(architecture))
    texts = ["bread", "a cat never barks at the moon " * 8]
    alone = torch.cat([scorer.score(QUERY, [text]) for text in texts])
    torch.testing.assert_close(scorer.score(QUERY, texts), alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["mpnet", "deberta-v2"])
def test_sizes_are_added_where_positions_are_relative(mixed: Callable[..., MixLM], architecture: str) -> None:
    states = torch.randn(3, 65, generator=torch.Generator().manual_seed(0))
    states[:, -1] = 0
    scorer = ReferenceScorer(mixed(architecture))
    without, larger = states.clone(), states.clone()
    without[2, -1], larger[1, -1] = -20, np.log(5)
    torch.testing.assert_close(
        scorer.score(QUERY, without[None]), scorer.score(QUERY, states[None, :2]), atol=1e-4, rtol=0
    )
    assert abs(scorer.score(QUERY, larger[None]) - scorer.score(QUERY, states[None])) > 1e-3


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3"])
@pytest.mark.parametrize("mix_layer", [1, 2])
def test_embedding_tokens_are_states_of_that_layer(
    mixed: Callable[..., MixLM], judge: Callable[..., Path], architecture: str, mix_layer: int
) -> None:
    """Of a document that is read alone. Of more clusters than states, each state is one, and the others are empty."""
    model = mixed(architecture, mix_layer=mix_layer, tokens=40)
    tokenizer = model.item_encoder.tokenizer
    assert model.item_encoder.backbone.config.num_hidden_layers == mix_layer
    backbone = AutoModelForSequenceClassification.from_pretrained(judge(architecture), num_labels=1).base_model.eval()
    for text in TEXTS:
        (ids,) = model.item_encoder.document_ids([text])
        lead = (
            2 if architecture != "qwen3" else len(tokenizer.encode("\nDocument:"))
        )  # what stands where a query would is read, and no part of it
        places = torch.arange(len(ids))[None]
        in_document = places >= lead
        segments = {"token_type_ids": in_document.long()} if architecture == "bert" else {}
        places = places + (model.config.document_position - lead) * in_document
        with torch.inference_mode():
            output = backbone(torch.tensor([ids]), position_ids=places, output_hidden_states=True, **segments)
            states = output.hidden_states[mix_layer][0, lead:]
        tokens = torch.from_numpy(model.encode([text]))[0]
        if architecture == "qwen3":
            torch.testing.assert_close(tokens[-1], states.mean(dim=0), atol=1e-4, rtol=0)
        else:
            real = tokens[tokens[:, -1] > -1]
            assert len(real) == len(states) and not real[:, -1].any()
            assert torch.cdist(states, real[:, :-1]).min(dim=1).values.max() < 1e-3


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "distilbert", "electra"])
def test_a_token_of_two_states_counts_as_two(mixed: Callable[..., MixLM], architecture: str) -> None:
    states = torch.randn(3, 65, generator=torch.Generator().manual_seed(0))
    states[:, -1] = 0
    twice, nothing = states[:2].clone(), states[:1].clone()
    twice[0, -1], nothing[0, -1] = np.log(2), -20
    scorer = SharedPrefixScorer(mixed(architecture))
    expected, found, other, without = (
        scorer.score(QUERY, tokens[None])
        for tokens in (
            torch.cat([states[:1], states[:2]]),
            twice,
            states[:2],
            torch.cat([nothing, states[:2]]),
        )
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(without, other, atol=1e-5, rtol=0)
    assert abs(found - other) > 1e-4


def test_the_packed_pass_has_the_gradients_of_the_backbones_own_layers(
    mixed: Callable[..., MixLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    for architecture, fixed in (("bert", False), ("bert", True), ("qwen3", False)):
        ranker = mixed(architecture, mix_layer=1 if fixed else 2, fixed_documents=fixed).ranker
        items = [torch.randn(count, 3, 64, generator=torch.Generator().manual_seed(count)) for count in (2, 17)]

        def gradients(ranker: Any = ranker, items: Any = items) -> dict[str, torch.Tensor]:
            ranker.zero_grad()
            states = torch.cat(ranker.forward_packed(ranker.prefixes(["a dog", "the moon is a rock"]), items))
            (states.sin() * torch.arange(64)).sum().backward()
            return {name: p.grad.clone() for name, p in ranker.named_parameters() if p.grad is not None}

        ours = gradients()
        monkeypatch.setattr(ranker, "_packed" if architecture == "qwen3" else "_plain", None)
        theirs = gradients()
        monkeypatch.undo()
        assert any("0.attention" in name or "0.self_attn" in name for name in ours)  # the prefix, below the mix layer
        largest = max(float(gradient.abs().max()) for gradient in theirs.values())
        assert ours.keys() == theirs.keys()
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name], atol=1e-4 * largest, rtol=1e-3)
        ranker.zero_grad()


def test_fixed_documents_by_hand(mixed: Callable[..., MixLM], judge: Callable[..., Path]) -> None:
    """The layers one by one: each takes what the one before made of the query, and the document as it entered."""
    model = mixed("bert", mix_layer=1, fixed_documents=True)
    whole = AutoModelForSequenceClassification.from_pretrained(judge("bert")).eval()
    document = torch.randn(3, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        (prefix,) = model.ranker.prefixes([QUERY])
        query = prefix.states
        for layer in whole.bert.encoder.layer[1:]:
            query = layer(torch.cat([query, document])[None])[0][: len(query)]
        found = model.ranker([prefix], [document])[0]
    torch.testing.assert_close(found, query[0], atol=1e-5, rtol=0)


def test_fixed_documents_need_an_encoder_with_a_mix_layer(
    judge: Callable[..., Path], tiny: Callable[..., MixLM]
) -> None:
    with pytest.raises(InputError, match="fixed_documents is for encoders"):
        MixLM.from_cross_encoder(judge("qwen3"), fixed_documents=True)
    with pytest.raises(InputError, match="fixed_documents needs a mix layer"):
        replace(tiny("bert").config, fixed_documents=True)


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "xlm-roberta", "mpnet", "deberta-v2", "qwen3"])
def test_a_saved_model_gives_the_same_scores(mixed: Callable[..., MixLM], architecture: str, tmp_path: Path) -> None:
    model = mixed(architecture, mix_layer=2)
    model.save_pretrained(tmp_path)
    loaded = MixLM.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.fingerprint == model.fingerprint
    tokens = torch.from_numpy(model.encode(TEXTS))
    torch.testing.assert_close(torch.from_numpy(loaded.encode(TEXTS)), tokens, atol=0, rtol=0)
    assert (
        SharedPrefixScorer(loaded).score(QUERY, tokens).tolist()
        == SharedPrefixScorer(model).score(QUERY, tokens).tolist()
    )


def test_a_third_of_the_layers_read_documents_alone(cross_encoder: Callable[..., Path]) -> None:
    assert MixLM.from_cross_encoder(cross_encoder(num_hidden_layers=6)).config.mix_layer == 2


def test_the_fingerprint_knows_the_mix_layer(mixed: Callable[..., MixLM]) -> None:
    assert len({mixed("bert", mix_layer=layer).fingerprint for layer in (1, 2)}) == 2


def test_it_ranks_from_an_index_and_the_cross_encoder_verifies(
    mixed: Callable[..., MixLM], judge: Callable[..., Path], documents: list[Document], tmp_path: Path
) -> None:
    model = mixed("bert", mix_layer=2)
    index = TokenIndex.build(documents, model, tmp_path / "tokens", progress=False)
    docids = [document.docid for document in documents]
    scores = {doc.docid: doc.score for doc in Reranker(model, index).rerank(QUERY, docids)}
    tokens = torch.from_numpy(np.stack([index.fetch([docid]).tokens[0] for docid in docids])).float()
    expected = ReferenceScorer(model).score(QUERY, tokens)
    assert [scores[docid] for docid in docids] == pytest.approx(expected.tolist(), abs=1e-4)
    texts = {document.docid: document.content for document in documents}
    top = Reranker(model, index, verify_top=2, texts=texts).rerank(QUERY, docids)[:2]
    for doc in top:
        (own,) = FullTextScorer(model).score(QUERY, [texts[doc.docid]]).tolist()
        assert doc.score == pytest.approx(own, abs=1e-4)


def test_what_is_no_cross_encoder_is_refused_by_name(
    judge: Callable[..., Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    def refused(source: Path, because: str, **options: Any) -> None:
        with pytest.raises(InputError, match=because):
            MixLM.from_cross_encoder(source, **options)

    refused(judge("bert", num_labels=2), "classifier of 2 labels")
    refused(checkpoint("bert"), r"BertModel\) is not a cross-encoder")
    refused(judge("modernbert", classifier_pooling="mean"), "reads the first token")
    refused(judge("bert"), "mix_layer must be at least 1", mix_layer=0)
    refused(judge("bert"), "mix_layer must be below 3", mix_layer=3)
    refused(judge("bert"), "mix_layer must be a whole number", mix_layer="2")
    refused(judge("bert"), "max_length must be at least 24", max_length=3)
    assert MixLM.from_cross_encoder(judge("bert"), max_length=40).config.max_document_tokens == 28
    refused(judge("bert"), "has a classification head.*answers are not read", answers=["yes"])
    refused(judge("gemma2", final_logit_softcapping=30.0), "bounds its logits")
    config = AlbertConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=1)
    AlbertClassifier(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(judge("bert")).save_pretrained(tmp_path)
    refused(
        tmp_path, "AlbertForSequenceClassification.* is not a cross-encoder that MixLM can be cut out of. It takes Bert"
    )
