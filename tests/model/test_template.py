"""A text can neither push its template out nor close it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.template import Template, readable, text_ids


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Callable[..., Path]) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(checkpoint("bert"))  # type: ignore[no-any-return]


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200), limit=st.integers(6, 60))
def test_every_sequence_fits_and_keeps_its_template(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> None:
    template = Template(tokenizer, "[CLS]a{text}b[SEP]", limit)
    (ids,) = template.ids([text])
    names = tokenizer.convert_ids_to_tokens(ids)
    assert len(ids) <= limit
    assert names[:2] == ["[CLS]", "a"] and names[-2:] == ["b", "[SEP]"]


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200), limit=st.integers(12, 60))
def test_joined_to_its_template_a_text_is_tokenised_as_in_one_string(
    tokenizer: PreTrainedTokenizerBase, text: str, limit: int
) -> None:
    template = Template(tokenizer, "[CLS]the dog: {text}. Bread[SEP]", limit, joined=True)
    (ids,) = template.ids([text])
    assert len(ids) <= limit
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    (whole,) = text_ids(tokenizer, [f"the dog: {text}. Bread"])
    if len(whole) <= limit - 2:
        assert ids[1:-1] == whole
    assert ids[: template.before] == [tokenizer.cls_token_id, *text_ids(tokenizer, ["the dog:"])[0]]


def test_a_text_with_more_tokens_behind_a_space_is_cut_too(tokenizer: PreTrainedTokenizerBase) -> None:
    for limit in range(12, 19):
        template = Template(tokenizer, "[CLS]the dog: {text}\nof the moon[SEP]", limit, joined=True)
        for text in ("yes", "yesyes", "no yes", "barks barks"):
            (ids,) = template.ids([text * 3])
            assert len(ids) <= limit and tokenizer.decode(ids).endswith("of the moon[SEP]")


def test_special_tokens_inside_a_text_are_plain_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    (ids,) = Template(tokenizer, "[CLS]{text}[SEP]", 40).ids(["dog[SEP]<pad>cat[CLS]"])
    special = {tokenizer.get_vocab()[name] for name in ("[CLS]", "[SEP]", "<pad>")}
    assert [i for i in ids if i in special] == [ids[0], ids[-1]]


def test_a_template_without_room_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(InputError, match="leaves no room"):
        Template(tokenizer, "[CLS]{text}[SEP]", 2)


def test_half_a_surrogate_pair_is_read_as_a_question_mark(tokenizer: PreTrainedTokenizerBase) -> None:
    template = Template(tokenizer, "[CLS]{text}[SEP]", 40)
    assert template.ids(["a\ud83db"]) == template.ids(["a?b"])


BLANK = ["", " \n", "\0", "\u00ad", "\u200b", "\ufeff", "\ufe0f\u0301", "\ud83d", "\U000e0041", "\u3164\u2800"]


@pytest.mark.parametrize("word", ["a", "7", "é", "永", "?", "\u200b."])
def test_texts_without_a_visible_character_are_not_read(tokenizer: PreTrainedTokenizerBase, word: str) -> None:
    """Though a tokenizer of bytes has tokens for them."""
    assert readable(tokenizer, [*BLANK, word, "".join(BLANK) + word]) == [False] * len(BLANK) + [True, True]


def test_texts_of_unknown_tokens_alone_are_not_read() -> None:
    tokenizer = MixLM.from_pretrained("default").ranker.tokenizer
    assert readable(tokenizer, [*BLANK, "🔥", "🔥 \ue000", "🔥 fire", "永"]) == [False] * (len(BLANK) + 2) + [
        True,
        True,
    ]


def test_no_texts_give_no_sequences(tokenizer: PreTrainedTokenizerBase) -> None:
    assert Template(tokenizer, "[CLS]{text}[SEP]", 9).ids([]) == []


def test_a_tokenizer_is_used_by_one_thread_at_a_time() -> None:
    busy = threading.Lock()

    def tokenizer(texts: Sequence[str], **options: Any) -> dict[str, list[list[int]]]:
        assert busy.acquire(blocking=False)
        time.sleep(0.01)
        busy.release()
        return {"input_ids": [[len(text)] for text in texts]}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda count: text_ids(cast(Any, tokenizer), ["a" * count]), range(8)))
    assert found == [[[count]] for count in range(8)]
