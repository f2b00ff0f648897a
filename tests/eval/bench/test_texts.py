"""Synthetic texts have exactly the wished number of tokens, for every kind of tokenizer that we test with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.bench.synthetic import DecoderShape, Words, random_mixlm
from mixlm_rerank.systems.loading import minilm_folder


def assert_exact(tokenizer: PreTrainedTokenizerFast, least_words: int) -> None:
    words = Words(tokenizer)
    for length in (1, 2, 17, 64, 512):
        texts = words.texts(5, length)
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        assert lengths == [length] * 5
        assert [len(text.split()) for text in texts] == [length] * 5  # whole words
    assert len(set(words.text(5000).split())) >= least_words
    drawn = []
    for seed in (1, 1, 2):
        words.draw.seed(seed)
        drawn.append(words.text(9))
    assert drawn[0] == drawn[1] != drawn[2]


def test_byte_level_bpe(checkpoint: Callable[..., Path]) -> None:
    assert_exact(AutoTokenizer.from_pretrained(checkpoint("bert")), 10)


def test_wordpiece() -> None:
    pieces = ["[UNK]", "[PAD]", "dog", "##s", "cat", "moon", "##moon", "42", "bark"]
    tokenizer = Tokenizer(models.WordPiece({piece: row for row, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    assert_exact(fast, 4)
    assert set(Words(fast).text(999).split()) == {"dog", "cat", "moon", "bark"}


def test_the_default_models_tokenizer() -> None:
    folder = minilm_folder()
    if folder is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    assert_exact(AutoTokenizer.from_pretrained(folder), 3000)


def test_a_tokenizer_without_words_is_refused() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "##s": 1, "42": 2}, unk_token="[UNK]"))
    with pytest.raises(InputError, match="no word of this tokenizer's vocabulary"):
        Words(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))


def test_the_random_decoder_reads_prefix_and_documents_of_the_wished_lengths() -> None:
    model = random_mixlm(DecoderShape(1, 64, 2, 1, 32, prefix=40), tokens=1, document=50)
    words = Words(model.ranker.tokenizer)
    (prefix,) = model.ranker.prefixes([words.text(40 - words.prompt(model.ranker))])
    (document,) = model.ranker.documents([words.text(50)], [len(prefix)])
    assert (len(prefix), len(document)) == (40, 50)
    assert model.config.tokens == 1 and model.config.residual == "none"
