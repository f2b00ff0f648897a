"""A new, untrained MixLM from two Hugging Face checkpoints, and an embedding model by itself."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..errors import InputError
from .assembly import N, assemble, assemble_encoder, load_tokenizer, quiet
from .config import MixLMConfig, Pooling
from .convention import convention_of, own_template
from .families import Family, family_of, load_backbone, longest_sequence
from .hub import in_cache
from .item_encoder import ItemEncoder

__all__ = ["bi_encoder", "from_backbones"]

LONGEST = 256  # tokens of a text


def from_backbones(
    make: type[N],
    encoder_source: str | None,
    ranker_source: str,
    *,
    pooling: Pooling | None,
    query_prompt: str | None,
    document_prompt: str | None,
    prompt: str | None,
    hub: dict[str, Any],
    **sizes: Any,
) -> N:
    """See :meth:`MixLM.from_backbones`. ``sizes`` go into MixLMConfig as they are."""
    if (encoder_source is None) == (not sizes["vectors"]):
        raise InputError(
            "give an item encoder or, where documents are vectors of your own, their width: one of the two"
        )
    encoder_tokenizer = None
    if encoder_source is not None:
        encoder_source = in_cache(encoder_source, hub)
        family, encoder_tokenizer = family_of(encoder_source, **hub), load_tokenizer(encoder_source, **hub)
        read_as = _read_as(encoder_source, family, encoder_tokenizer, pooling, query_prompt, document_prompt, **hub)
    elif pooling or query_prompt or document_prompt:
        raise InputError("pooling, query_prompt and document_prompt are of an item encoder: vectors have none")
    else:
        read_as = {"pooling": "last", "template": "{text}"}
    ranker_source = in_cache(ranker_source, hub)
    ranker_family, ranker_tokenizer = family_of(ranker_source, **hub), load_tokenizer(ranker_source, **hub)
    config = MixLMConfig(
        prompt=ranker_family.prompt(ranker_tokenizer) if prompt is None else prompt,
        score_token=ranker_family.score_token(ranker_tokenizer),
        **read_as,
        **sizes,
    )
    with quiet():
        encoder = None if encoder_source is None else load_backbone(encoder_source, **hub)
        backbone, head = ranker_family.load(ranker_source, **hub)
    model = assemble(make, config, encoder, encoder_tokenizer, backbone, ranker_tokenizer, ranker_family)
    start = ranker_family.answer(head, ranker_tokenizer)
    if start is not None:
        with torch.no_grad():
            model.readout.score.weight.copy_(start[None])
    return model.eval()


def bi_encoder(source: str, *, hub: dict[str, Any]) -> ItemEncoder:
    """An embedding model with its own pooling and prompts, one embedding token a document, in float32.

    It reads 256 tokens of a text, or as many as it can. Raises InputError for a checkpoint that cannot be read.
    """
    source = in_cache(source, hub)
    family, tokenizer = family_of(source, **hub), load_tokenizer(source, **hub)
    settings = _read_as(source, family, tokenizer, None, None, None, **hub)
    with quiet():
        backbone = load_backbone(source, **hub)
    longest = min(LONGEST, longest_sequence(backbone))
    config = MixLMConfig(tokens=1, prompt="{text}", score_token="", max_document_tokens=longest, **settings)
    return assemble_encoder(config, backbone, tokenizer).eval()


def _read_as(
    source: str,
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    pooling: Pooling | None,
    query_prompt: str | None,
    document_prompt: str | None,
    **hub: Any,
) -> dict[str, Any]:
    """How an item encoder reads texts: as is said, else as its checkpoint says. Keywords of MixLMConfig."""
    convention = None if pooling else convention_of(source, **hub)
    if convention is None:
        template = family.text_template(tokenizer)
        pooling = pooling or family.pooling
    else:
        template = own_template(tokenizer)
        pooling = convention.pooling
        query_prompt = convention.query_prompt if query_prompt is None else query_prompt
        document_prompt = convention.document_prompt if document_prompt is None else document_prompt
    if family.causal and pooling == "cls":
        raise InputError(f"{source!r} is a decoder: its first position sees no text, so pooling cannot be cls")
    return {
        "pooling": pooling,
        "template": template,
        "query_prompt": query_prompt or "",
        "document_prompt": document_prompt or "",
    }
