"""Stage I, for decoders: the ranker's language model learns a judge's reasoning before it learns to rank.

The sequence is ``prompt with the query | document | reasoning: rationale | answer: yes or no``. On the rationale the
loss is KL to the judge's next-token distribution if given, else the cross-entropy of its tokens; on the verdict it is
KL between (p_yes, p_no) of judge and model. The result is a ranker for :meth:`MixLM.from_backbones`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as part
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, TrainingArguments

from mixlm_rerank.data.lines import json_lines
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.families import DecoderFamily, family_of
from mixlm_rerank.model.hub import load_tokenizer
from mixlm_rerank.model.template import Template, text_ids
from mixlm_rerank.training.losses import pointwise
from mixlm_rerank.training.stage_trainer import STRICT, StageTrainer, training_arguments

__all__ = ["Judgement", "ReasoningPart", "Sequencer", "read_judgements", "reasoning_loss", "train_reasoning"]

REASONING, ANSWER = "\nReasoning: ", "\nAnswer: "
MOST_QUERY_TOKENS = 256
TOKENS_AT_ONCE = 64  # tokens whose logits are in float32 at a time


@part(frozen=True, config=STRICT)
class ReasoningPart:
    """Stage I in a recipe: the decoder it makes is ``{run}/reasoning/model``."""

    judgements: str  # a JSONL file, see :func:`read_judgements`
    checkpoint: str
    max_length: int = Field(default=2048, ge=2)
    arguments: dict[str, Any] = field(default_factory=dict)  # of Transformers' TrainingArguments


@dataclass(frozen=True)
class Judgement:
    """A judge's grade of a document for a query, and the reasons."""

    query: str
    document: str
    rationale: str  # why, in words
    grade: float  # p(yes), in [0, 1]
    # Likeliest next tokens at each token of the rationale, {token id: log-probability}; None: only words are given
    logits: list[dict[int, float]] | None = None


def read_judgements(path: str | Path) -> list[Judgement]:
    """``{"query", "document", "rationale", "grade"}``, perhaps ``"logits"``: a list of [id, log-probability] a token.

    Raises InputError for a malformed line, by its number, a pair judged twice with different grades, or an empty file.
    """
    found = [_judgement(fields, where) for where, fields in json_lines(path)]
    if not found:
        raise InputError(f"{path} holds no judgements")
    grades: dict[tuple[str, str], float] = {}
    for one in found:
        if grades.setdefault((one.query, one.document), one.grade) != one.grade:
            raise InputError(f"{path}: the query {one.query!r} and one of its documents have two different grades")
    return found


def _judgement(fields: dict[str, Any], where: str) -> Judgement:
    texts = [fields.get(name) for name in ("query", "document", "rationale")]
    grade, logits = fields.get("grade"), fields.get("logits")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{where}: query, document and rationale must be texts that are not empty")
    if not isinstance(grade, int | float) or not 0 <= grade <= 1:
        raise InputError(f"{where}: grade must be a number from 0 to 1, not {grade!r}")
    try:
        steps = None if logits is None else [{int(token): float(value) for token, value in step} for step in logits]
    except (TypeError, ValueError):
        steps = [{}]
    if steps is not None and not all(step and all(map(math.isfinite, step.values())) for step in steps):
        raise InputError(
            f"{where}: logits must be a list of [token id, log-probability] for each token of the rationale"
        )
    query, document, rationale = (str(text) for text in texts)
    return Judgement(query, document, rationale, float(grade), steps)


@dataclass(frozen=True)
class Reasoned:
    """Token ids, the positions of the rationale in them, and the judge's grade and logits."""

    ids: list[int]
    rationale: range
    grade: float
    logits: list[dict[int, float]] | None


class Sequencer:
    """Judgements -> token ids. Only the document is truncated, so that everything fits into ``max_length`` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_query_tokens: int, max_length: int) -> None:
        self.tokenizer = tokenizer
        self._prompt = Template(tokenizer, DecoderFamily().prompt(tokenizer), max_query_tokens)
        self._reasoning, self._answer = text_ids(tokenizer, [REASONING, ANSWER])
        self._max_length = max_length

    def __call__(self, judgement: Judgement) -> Reasoned:
        """Raises InputError if prompt and rationale are too long, or the judge's logits do not match it."""
        (prefix,) = self._prompt.ids([judgement.query])
        document, rationale = text_ids(self.tokenizer, [judgement.document, judgement.rationale])
        if judgement.logits is not None and len(judgement.logits) != len(rationale):
            raise InputError(
                f"the judge gave logits for {len(judgement.logits)} tokens, its rationale has {len(rationale)} in this "
                f"tokenizer (query {judgement.query!r}): the judge must have the same tokenizer"
            )
        fixed = len(prefix) + len(self._reasoning) + len(rationale) + len(self._answer)
        if fixed >= self._max_length:
            raise InputError(
                f"prompt and rationale of the query {judgement.query!r} have {fixed} tokens, max_length is "
                f"{self._max_length}: raise it"
            )
        before = [*prefix, *document[: self._max_length - fixed], *self._reasoning]
        ids = [*before, *rationale, *self._answer]
        return Reasoned(ids, range(len(before), len(before) + len(rationale)), judgement.grade, judgement.logits)


def reasoning_loss(logits: Tensor, sequences: Sequence[Reasoned], yes: int, no: int, first: int = 0) -> Tensor:
    """Mean over sequences of the rationale's mean loss per token plus the loss of the verdict.

    Args:
        logits: float [n, length, vocabulary], padded at the end, for the positions from ``first`` on. Only a few
            positions are in float32 at a time.
        yes, no: token ids of the verdicts.
    """
    losses = []
    for row, sequence in zip(logits, sequences, strict=True):
        words = []
        for start in range(0, len(sequence.rationale), TOKENS_AT_ONCE):
            places = sequence.rationale[start : start + TOKENS_AT_ONCE]
            predicted = row[places.start - 1 - first : places.stop - 1 - first]
            judged = sequence.logits and sequence.logits[start : start + TOKENS_AT_ONCE]
            told = sequence.ids[places.start : places.stop]
            words.append(checkpoint(_of_words, predicted, told, judged, use_reentrant=False))
        last = row[len(sequence.ids) - 1 - first].float()
        verdict = pointwise(torch.tensor([sequence.grade], device=row.device), (last[yes] - last[no])[None])
        losses.append(torch.stack(words).sum() / len(sequence.rationale) + verdict)
    return torch.stack(losses).mean()


def _of_words(logits: Tensor, told: Sequence[int], judged: Sequence[Mapping[int, float]] | None) -> Tensor:
    """Sum of the losses of tokens [n]. ``logits``: [n, vocabulary], at the positions that predict these tokens."""
    predicted = logits.float().log_softmax(dim=-1)
    if judged is None:
        return F.nll_loss(predicted, torch.tensor(told, device=logits.device), reduction="sum")
    losses = []
    for likeliest, own in zip(judged, predicted, strict=True):  # KL over the judge's likeliest tokens, normalised
        tokens = torch.tensor(list(likeliest), device=logits.device)
        target = torch.tensor(list(likeliest.values()), device=logits.device).log_softmax(dim=0)
        losses.append((target.exp() * (target - own[tokens])).sum())
    return torch.stack(losses).sum()


def train_reasoning(
    part: ReasoningPart,
    judgements: Sequence[Judgement],
    folder: str | Path,
    *,
    seed: int = 0,
    local_files_only: bool = False,
) -> Path:
    """Train a decoder checkpoint; returns the folder of the new one, ``model`` under ``folder``. Resumable.

    Raises InputError if the checkpoint is no decoder, or a judgement does not fit.
    """
    hub = {"local_files_only": local_files_only}
    if not family_of(part.checkpoint, **hub).causal:
        raise InputError(f"{part.checkpoint!r} is no decoder: stage I needs one that can write a rationale")
    tokenizer = load_tokenizer(part.checkpoint, **hub)
    sequencer = Sequencer(tokenizer, MOST_QUERY_TOKENS, part.max_length)
    model = AutoModelForCausalLM.from_pretrained(part.checkpoint, dtype=torch.float32, **hub)
    verdicts = [tokenizer.encode(word, add_special_tokens=False) for word in ("yes", "no")]
    if any(len(pieces) != 1 for pieces in verdicts):
        raise InputError(
            f'"yes" and "no" must be one token each in the tokenizer of {part.checkpoint!r}, not {verdicts}'
        )
    trainer = _ReasoningTrainer(
        model=model,
        verdicts=(verdicts[0][0], verdicts[1][0]),
        args=training_arguments(
            TrainingArguments, part.arguments, output_dir=str(folder), remove_unused_columns=False, seed=seed
        ),
        train_dataset=[sequencer(judgement) for judgement in judgements],
        data_collator=_collate,
    )
    return trainer.train_on(lambda draft: (model.save_pretrained(draft), tokenizer.save_pretrained(draft)))


class _ReasoningTrainer(StageTrainer):
    def __init__(self, *, verdicts: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self._verdicts = verdicts

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        sequences, length = inputs["sequences"], inputs["input_ids"].shape[1]
        first = min(sequence.rationale.start for sequence in sequences) - 1
        if "logits_to_keep" in inspect.signature(type(self.accelerator.unwrap_model(model)).forward).parameters:
            asked = {"logits_to_keep": length - first}  # a vocabulary is large, and documents are long
        else:
            first, asked = 0, {}
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **asked).logits
        return reasoning_loss(logits, sequences, *self._verdicts, first)


def _collate(sequences: Sequence[Reasoned]) -> dict[str, Any]:
    ids = [torch.tensor(sequence.ids) for sequence in sequences]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask, "sequences": list(sequences)}
