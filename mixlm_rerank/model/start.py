"""A new, untrained MixLM from two Hugging Face checkpoints."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import InputError
from .assembly import assemble, load_tokenizer, quiet
from .config import MixLMConfig, Pooling
from .convention import convention_of, own_template
from .families import family_of, load_backbone
from .mixlm import MixLM

__all__ = ["from_backbones"]


def from_backbones(
    encoder_source: str,
    ranker_source: str,
    *,
    pooling: Pooling | None,
    query_prompt: str | None,
    document_prompt: str | None,
    prompt: str | None,
    hub: dict[str, Any],
    **sizes: Any,
) -> MixLM:
    """See :meth:`MixLM.from_backbones`. ``sizes`` go into MixLMConfig as they are."""
    encoder_family, ranker_family = family_of(encoder_source, **hub), family_of(ranker_source, **hub)
    encoder_tokenizer = load_tokenizer(encoder_source, **hub)
    ranker_tokenizer = load_tokenizer(ranker_source, **hub)
    convention = None if pooling else convention_of(encoder_source, **hub)
    if convention is None:
        template = encoder_family.text_template(encoder_tokenizer)
        pooling = pooling or encoder_family.pooling
    else:
        template = own_template(encoder_tokenizer)
        pooling = convention.pooling
        query_prompt = convention.query_prompt if query_prompt is None else query_prompt
        document_prompt = convention.document_prompt if document_prompt is None else document_prompt
    if encoder_family.causal and pooling == "cls":
        raise InputError(f"{encoder_source!r} is a decoder: its first position sees no text, so pooling cannot be cls")
    config = MixLMConfig(
        pooling=pooling,
        prompt=ranker_family.prompt(ranker_tokenizer) if prompt is None else prompt,
        score_token=ranker_family.score_token(ranker_tokenizer),
        template=template,
        query_prompt=query_prompt or "",
        document_prompt=document_prompt or "",
        **sizes,
    )
    with quiet():
        encoder = load_backbone(encoder_source, **hub)
        backbone, head = ranker_family.load(ranker_source, **hub)
    model = assemble(config, encoder, encoder_tokenizer, backbone, ranker_tokenizer, ranker_family)
    start = ranker_family.answer(head, ranker_tokenizer)
    if start is not None:
        with torch.no_grad():
            model.readout.score.weight.copy_(start[None])
    return model.eval()
