"""Stage I, for decoders: the ranker's language model learns a judge's reasoning before it learns to rank.

The sequence is ``prompt with the query | document | reasoning: rationale | answer: yes or no``. Over the rationale the
loss is KL to the judge's next-token distribution where that is given, else the cross-entropy of its words; at the
verdict it is KL between (p_yes, p_no) of judge and model. What comes out is a ranker for :meth:`MixLM.from_backbones`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, TrainingArguments

from mixlm_rerank.errors import InputError
from mixlm_rerank.model.assembly import load_tokenizer
from mixlm_rerank.model.families import DecoderFamily, family_of
from mixlm_rerank.model.template import Template, text_ids
from mixlm_rerank.training.checkpoints import MODEL, keep_model, last_checkpoint, training_arguments
from mixlm_rerank.training.losses import pointwise
from mixlm_rerank.training.reasoning import Judgement
from mixlm_rerank.training.stage_trainer import StageTrainer

__all__ = ["Sequencer", "reasoning_loss", "train_reasoning"]

REASONING, ANSWER = "\nReasoning: ", "\nAnswer: "
TOKENS_AT_ONCE = 64  # whose logits are in float32


@dataclass(frozen=True)
class Reasoned:
    """Token ids, where the rationale's tokens stand in them, and what the judge says.

    ``logits``: of the judge, for each token of the rationale that is left; None for its words alone.
    """

    ids: list[int]
    rationale: range
    grade: float
    logits: list[dict[int, float]] | None


class Sequencer:
    """Judgements -> token ids. Only the document is ever cut, so that everything fits into ``max_length`` tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_query_tokens: int, max_length: int) -> None:
        self.tokenizer = tokenizer
        self._prompt = Template(tokenizer, DecoderFamily().prompt(tokenizer), max_query_tokens)
        self._reasoning, self._answer = text_ids(tokenizer, [REASONING, ANSWER])
        self._max_length = max_length

    def __call__(self, judgement: Judgement) -> Reasoned:
        """Raises InputError if prompt and rationale are too long, or the judge's logits are not the rationale's."""
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
    """Mean over sequences of the rationale's mean loss a token and the verdict's.

    Args:
        logits: float [n, length, vocabulary], padded at the end; of the positions from ``first`` on. Few of them are in
            float32 at a time.
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
    """Sum over tokens [n] of their loss. ``logits``: [n, vocabulary], each where its token is predicted."""
    predicted = logits.float().log_softmax(dim=-1)
    if judged is None:
        return F.nll_loss(predicted, torch.tensor(told, device=logits.device), reduction="sum")
    return torch.stack([_kl(step, own) for step, own in zip(judged, predicted, strict=True)]).sum()


def train_reasoning(
    checkpoint: str,
    judgements: Sequence[Judgement],
    folder: str | Path,
    *,
    max_length: int = 2048,
    max_query_tokens: int = 256,
    local_files_only: bool = False,
    **arguments: Any,
) -> Path:
    """Train a decoder checkpoint; returns the folder of the new one, ``model`` under ``folder``. Resumable.

    ``arguments``: of TrainingArguments (``learning_rate=1e-5``, ``num_train_epochs=3`` ...).

    Raises InputError if the checkpoint is no decoder, or a judgement does not fit.
    """
    folder = Path(folder)
    if not family_of(checkpoint, local_files_only=local_files_only).causal:
        raise InputError(f"{checkpoint!r} is no decoder: stage I needs one that can write a rationale")
    tokenizer = load_tokenizer(checkpoint, local_files_only=local_files_only)
    sequencer = Sequencer(tokenizer, max_query_tokens, max_length)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=local_files_only, dtype=torch.float32)
    verdicts = [tokenizer.encode(word, add_special_tokens=False) for word in ("yes", "no")]
    if any(len(pieces) != 1 for pieces in verdicts):
        raise InputError(f'"yes" and "no" must be one token each in the tokenizer of {checkpoint!r}, not {verdicts}')
    trainer = _ReasoningTrainer(
        model=model,
        verdicts=(verdicts[0][0], verdicts[1][0]),
        args=training_arguments(TrainingArguments, arguments, output_dir=str(folder), remove_unused_columns=False),
        train_dataset=[sequencer(judgement) for judgement in judgements],
        data_collator=_collate,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    trainer.save_state()
    keep_model(folder, lambda draft: (model.save_pretrained(draft), tokenizer.save_pretrained(draft)))
    return folder / MODEL


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
    longest = max(len(sequence.ids) for sequence in sequences)
    rows = [[*sequence.ids, *[0] * (longest - len(sequence.ids))] for sequence in sequences]
    mask = [[1] * len(sequence.ids) + [0] * (longest - len(sequence.ids)) for sequence in sequences]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask), "sequences": list(sequences)}


def _kl(judge: Mapping[int, float], predicted: Tensor) -> Tensor:
    """KL of the judge's likeliest tokens, made to sum to 1, to the model's log-probabilities [vocabulary]."""
    tokens = torch.tensor(list(judge), device=predicted.device)
    own = torch.tensor(list(judge.values()), device=predicted.device).log_softmax(dim=0)
    return (own.exp() * (own - predicted[tokens])).sum()
