"""A MixLM cut out of a cross-encoder: its lower layers read documents alone, its upper layers rank them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, Unpack, cast

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..arguments import check_count, check_list_of_strings
from ..errors import InputError
from .assembly import assemble
from .config import Head, MixLMConfig
from .families import Family, answer_weights, longest_sequence, opened
from .hub import HubOptions, checked, complete
from .layers import span
from .network import Network
from .running import inference
from .template import Template

__all__ = ["PAIRS", "FromCrossEncoder"]

# After a query of usual length. Untrained, rank-biased overlap with the teacher is .608; from position 0, .585.
DOCUMENT_POSITION = 12
LONGEST = 512  # tokens
TOLERANCE = 1e-3  # log-odds, or this share of the larger answer
PAIRS = [("why is the sky blue?", "Blue light is scattered more by air."), ("dogs", "Bread is made of flour and salt.")]

# Classification heads: what precedes the last layer, as named in MixLMConfig.head, and the layers with weights.
HEADS: dict[str, tuple[Head, Callable[[Any], list[nn.Module]]]] = {
    "Bert": ("tanh", lambda whole: [whole.bert.pooler.dense, whole.classifier]),
    "Camembert": ("tanh", lambda whole: [whole.classifier.dense, whole.classifier.out_proj]),
    "DebertaV2": ("gelu", lambda whole: [whole.pooler.dense, whole.classifier]),
    "DistilBert": ("relu", lambda whole: [whole.pre_classifier, whole.classifier]),
    "Electra": ("gelu", lambda whole: [whole.classifier.dense, whole.classifier.out_proj]),
    "MPNet": ("tanh", lambda whole: [whole.classifier.dense, whole.classifier.out_proj]),
    "ModernBert": ("gelu+norm", lambda whole: [whole.head.dense, whole.head.norm, whole.classifier]),
    "Roberta": ("tanh", lambda whole: [whole.classifier.dense, whole.classifier.out_proj]),
    "XLMRoberta": ("tanh", lambda whole: [whole.classifier.dense, whole.classifier.out_proj]),
}


class FromCrossEncoder(Network):
    """Adds ``from_cross_encoder`` to MixLM, which cuts one out of a cross-encoder."""

    @classmethod
    def from_cross_encoder(
        cls,
        name: str | Path,
        *,
        mix_layer: int | None = None,
        tokens: int = 32,
        fixed_documents: bool = False,
        max_length: int = LONGEST,
        prompt: str | None = None,
        answers: Sequence[str] | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Cut a new MixLM out of a cross-encoder: its layers below ``mix_layer`` read documents alone.

        It differs from the checkpoint in two ways: below that layer documents do not attend to the query, and they
        are pooled to a few embedding tokens. Untrained, it ranks poorly; train it with ``mixlm-rerank distill``. In
        full-text mode it is the cross-encoder itself.

        Args:
            name: a folder or hub id, with a classification head of one label, or a decoder that answers yes or no.
            mix_layer: 1 to the last layer; by default a third of the layers. With a higher layer a candidate costs
                less, and more of a document's encoding is independent of the query.
            tokens: the largest token budget.
            fixed_documents: for encoders: above the mix layer only the query's states change; they attend to query and
                document. With BERT, RoBERTa and XLM-R a candidate then takes two thirds of the time at k = 8, two
                fifths at k = 32; with other encoders it takes as long.
            max_length: tokens of query and document together; at most as many as the checkpoint takes.
            prompt: for decoders: ``{text}`` stands for the query, ``{document}`` for the document. By default that of
                Qwen3-Reranker, if the tokenizer has its special tokens, else a plain question.
            answers: for decoders without a classification head: the word whose logit counts for a document, and
                optionally the one that counts against it, one token each. By default "yes" and "no".
            **hub: as in ``from_pretrained``.

        Raises:
            InputError: not a cross-encoder, or one of an unsupported kind.
        """
        if answers is not None:
            check_list_of_strings("answers", answers)
        check_count("max_length", max_length, least=2 * DOCUMENT_POSITION)
        check_count("mix_layer", mix_layer)
        options = checked(hub)
        source, family, tokenizer = opened(str(name), options)
        whole, head, layers = _loaded(source, family, tokenizer, answers, **options)
        backbone = cast(PreTrainedModel, whole.base_model)
        count = backbone.config.num_hidden_layers
        mix_layer = max(1, count // 3) if mix_layer is None else mix_layer
        if not mix_layer < count:
            raise InputError(f"mix_layer must be below {count}, the number of layers of {source!r}, not {mix_layer}")
        prompt = family.pair_prompt(tokenizer) if prompt is None else prompt
        if [*re.findall("{text}|{document}", prompt)] != ["{text}", "{document}"]:
            raise InputError(f"the prompt must have {{text}} and then {{document}}, each once: {prompt!r}")
        template = family.second_text(tokenizer, prompt.partition("{document}")[0].partition("{text}")[2])
        # positions of a decoder are relative: directly after what precedes the document
        position = Template(tokenizer, template, LONGEST, joined=True).before if family.causal else DOCUMENT_POSITION
        longest = min(max_length, tokenizer.model_max_length, longest_sequence(backbone))
        config = MixLMConfig(
            tokens=tokens,
            pooling="mean" if family.causal else "clusters",
            prompt=prompt,
            score_token="",
            template=template,
            residual="none",
            mix_layer=mix_layer,
            fixed_documents=fixed_documents,
            document_position=position,
            head=head,
            max_query_tokens=longest // 2,
            max_document_tokens=longest - position,
        )
        own_answers = None if family.causal else _answers(whole, tokenizer)
        setattr(backbone, "pooler", None)  # noqa: B010 (typed as a module)
        lower = copy.deepcopy(span(backbone, 0, mix_layer))
        model = assemble(cls, config, (lower, tokenizer), (backbone, tokenizer))
        with torch.no_grad():
            head_layers = [layer for layer in (*model.readout.head, model.readout.score) if [*layer.parameters()]]
            for own, theirs in zip(head_layers, layers, strict=True):
                given = dict(theirs.named_parameters())
                for part, weight in own.named_parameters():
                    weight.copy_(given[part] if part in given else torch.zeros_like(weight))  # some have no bias
        if own_answers is not None:
            _check(model, own_answers, source)
        return model.eval()


def _loaded(
    source: str, family: Family, tokenizer: PreTrainedTokenizerBase, answers: Sequence[str] | None, **options: Any
) -> tuple[PreTrainedModel, Head, list[nn.Module]]:
    """The cross-encoder, its head's name, and the head's layers with weights. Raises InputError for other models."""
    names = AutoConfig.from_pretrained(source, **options).architectures or [""]
    kind, _, task = names[0].partition("For")
    if task == "SequenceClassification":
        if answers is not None:
            raise InputError(f"{source!r} has a classification head, which gives its score: answers are not read")
        whole = complete(AutoModelForSequenceClassification, source, **options)
        labels = whole.config.num_labels
        if labels != 1:
            raise InputError(f"{source!r} is a classifier of {labels} labels; a cross-encoder has one")
        if family.causal:
            return whole, "linear", [cast(nn.Module, whole.score)]
        pooled = getattr(whole.config, "classifier_pooling", "cls") == "cls"
        if kind in HEADS and pooled:
            head, layers = HEADS[kind]
            return whole, head, layers(whole)
    elif family.causal:
        whole = complete(AutoModelForCausalLM, source, **options)
        if getattr(whole.config, "final_logit_softcapping", None):
            raise InputError(
                f"{source!r} bounds its logits (final_logit_softcapping): yes and no are not linear in its states"
            )
        start = answer_weights(whole, tokenizer, ("yes", "no") if answers is None else answers)
        linear = nn.Linear(len(start), 1, bias=False)
        linear.weight.data = start[None]
        return whole, "linear", [linear]
    raise InputError(
        f"{source!r} ({names[0] or 'no architecture named'}) is not a cross-encoder that MixLM can be cut out of. It "
        f"takes {', '.join(sorted(HEADS))} with a classification head of one label that reads the first token, and "
        "decoders that answer yes or no or have such a head"
    )


def _answers(whole: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """The checkpoint's own log-odds of two pairs."""
    with inference(whole):
        whole.float()
        found = [whole(**tokenizer(*pair, return_tensors="pt")).logits for pair in PAIRS]
        return torch.cat(found).flatten().tolist()


def _check(model: Network, answers: list[float], source: str) -> None:
    """Raises InputError if full-text mode does not equal the cross-encoder: another head, or another template."""
    ranker = model.ranker
    queries, texts = zip(*PAIRS, strict=True)
    with inference(model):
        inputs = ranker.inputs(queries)
        found = model.readout(
            ranker.forward_texts(inputs, ranker.documents(texts, [len(own) for own in inputs]))
        ).tolist()
        scale = max(1.0, *map(abs, answers))
        if not max(abs(own - right) for own, right in zip(found, answers, strict=True)) <= TOLERANCE * scale:
            raise InputError(
                f"{source!r} reads pairs in a way of its own: it answers {answers}, its parts put together {found}"
            )
