"""Stage I on a tiny decoder: its loss by hand, what it learns, what it refuses."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import Qwen3ForCausalLM, TrainingArguments

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.hub import load_tokenizer
from mixlm_rerank.scoring import FullTextScorer
from mixlm_rerank.training.stage1 import (
    Judgement,
    Reasoned,
    ReasoningPart,
    Sequencer,
    read_judgements,
    reasoning_loss,
    train_reasoning,
)
from mixlm_rerank.training.stage_trainer import training_arguments

FILE = Path(__file__).with_name("reasoning.jsonl")
YES, NO = 5, 6  # token ids


def test_the_loss_by_hand() -> None:
    """Two tokens of rationale after two others, then one before the verdict; a vocabulary of eight."""
    logits = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    row = logits[0].log_softmax(dim=-1)
    words = Reasoned([0, 1, 2, 3, 4], range(2, 4), 0.8, None)
    p = 1 / (1 + math.exp(-(logits[0, 4, YES] - logits[0, 4, NO]).item()))
    verdict = 0.8 * math.log(0.8 / p) + 0.2 * math.log(0.2 / (1 - p))
    expected = -(row[1, 2] + row[2, 3]).item() / 2 + verdict
    assert reasoning_loss(logits, [words], YES, NO).item() == pytest.approx(expected, abs=1e-5)

    judged = replace(words, logits=[{2: math.log(0.3), 7: math.log(0.1)}, {3: 0.0}])
    first = 0.75 * (math.log(0.75) - row[1, 2].item()) + 0.25 * (math.log(0.25) - row[1, 7].item())
    expected = (first - row[2, 3].item()) / 2 + verdict
    assert reasoning_loss(logits, [judged], YES, NO).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("judged", [False, True])
def test_few_logits_are_in_float32_at_a_time(monkeypatch: pytest.MonkeyPatch, judged: bool) -> None:
    """With the loss and the gradient of all at once, from the rationale's first position on."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 60, 50, generator=draw).bfloat16()
    told = [[{3: -0.1, token % 50: -2.0} for token in range(length)] for length in (23, 40)]
    sequences = [
        Reasoned(list(range(50)), range(25, 48), 0.8, told[0] if judged else None),
        Reasoned([7] * 60, range(18, 58), 0.1, told[1] if judged else None),
    ]
    found, largest = [], []

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        largest.append(tensor.numel() if tensor.dtype is torch.float32 else 0)
        return tensor

    for at_once, first in ((1000, 0), (4, 17)):
        monkeypatch.setattr("mixlm_rerank.training.stage1.TOKENS_AT_ONCE", at_once)
        leaf = logits[:, first:].clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            loss = reasoning_loss(leaf, sequences, YES, NO, first)
        loss.backward()
        assert leaf.grad is not None
        found.append((loss.item(), leaf.grad[:, 17 - first :]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1])
    assert max(largest) <= 50  # of the verdict alone


def test_padding_does_not_count() -> None:
    logits = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    sequence = Reasoned([0, 1, 2, 3], range(1, 3), 0.5, None)
    other = logits.clone()
    other[0, 4] += 9
    assert reasoning_loss(logits, [sequence], YES, NO) == reasoning_loss(other, [sequence], YES, NO)


def test_only_the_document_is_cut(checkpoint: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(str(checkpoint("qwen3")))
    judgement = read_judgements(FILE)[0]
    whole = Sequencer(tokenizer, 64, 500)(judgement)
    cut = Sequencer(tokenizer, 64, len(whole.ids) - 5)(judgement)
    assert len(cut.ids) == len(whole.ids) - 5
    text = tokenizer.decode(cut.ids)
    assert judgement.rationale in text and judgement.query in text and text.endswith("\nAnswer: ")
    assert judgement.document not in text
    assert tokenizer.decode([cut.ids[place] for place in cut.rationale]) == judgement.rationale
    with pytest.raises(InputError, match="prompt and rationale of the query .* max_length is 30: raise it"):
        Sequencer(tokenizer, 64, 30)(judgement)
    with pytest.raises(InputError, match="logits for 1 tokens, .* the judge must have the same tokenizer"):
        Sequencer(tokenizer, 64, 500)(replace(judgement, logits=[{1: 0.0}]))


def test_it_learns_the_judges_verdicts_and_the_checkpoint_starts_a_ranker(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, judgements = str(checkpoint("qwen3")), read_judgements(FILE)
    options: dict[str, Any] = {"learning_rate": 3e-3, "num_train_epochs": 30, "logging_steps": 6, "disable_tqdm": True}
    asked: list[tuple[int, int]] = []
    forward = Qwen3ForCausalLM.forward

    @functools.wraps(forward)
    def noted(*arguments: Any, **named: Any) -> Any:
        found = forward(*arguments, **named)
        asked.append((named["input_ids"].shape[1], found.logits.shape[1]))
        return found

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", noted)
    part = ReasoningPart(str(FILE), start, max_length=120, arguments=options)
    trained = train_reasoning(part, judgements, tmp_path)
    assert asked and all(logits < length for length, logits in asked)  # of the rationales alone
    losses = [
        row["loss"] for row in json.loads((tmp_path / "trainer_state.json").read_text())["log_history"] if "loss" in row
    ]
    assert not list(tmp_path.glob("checkpoint-*"))
    assert float(losses[-1]) < 0.3 * float(losses[0])
    model = MixLM.from_backbones(start, trained, max_query_tokens=64, max_document_tokens=40)
    before = MixLM.from_backbones(start, start, max_query_tokens=64, max_document_tokens=40)
    assert not torch.equal(model.readout.score.weight, before.readout.score.weight)
    assert FullTextScorer(model).score("what is the moon?", ["a rock", "bread"]).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rationale": " "}, "line 2: query, document and rationale must be texts"),
        ({"grade": 2}, "line 2: grade must be a number from 0 to 1, not 2"),
        ({"grade": None}, "line 2: grade must be a number"),
        ({"logits": [[1]]}, "line 2: logits must be a list"),
        ({"logits": [[[1, math.inf]]]}, "line 2: logits must be a list"),
        ({"grade": 0.1, "rationale": "No."}, "have two different grades"),
    ],
)
def test_bad_judgements_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    good = json.loads(FILE.read_text().splitlines()[0])
    path = tmp_path / "reasoning.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (good, good | changes)))
    with pytest.raises(InputError, match=message):
        read_judgements(path)


def test_encoders_and_empty_files_are_refused(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no decoder: stage I needs one"):
        train_reasoning(ReasoningPart("", str(checkpoint("bert"))), [Judgement("q", "d", "r", 0.5)], tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match="holds no judgements"):
        read_judgements(tmp_path / "empty.jsonl")


def test_small_numbers_may_be_written_without_a_point(tmp_path: Path) -> None:
    """YAML reads 1e-5 as a word."""
    found = training_arguments(
        TrainingArguments, yaml.safe_load("{learning_rate: 1e-5, run_name: '5'}"), output_dir=str(tmp_path)
    )
    assert (found.learning_rate, found.run_name) == (1e-5, "5")
