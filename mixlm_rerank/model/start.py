"""A new, untrained MixLM from two Hugging Face checkpoints, and an embedding model by itself.

An embedding model keeps the pooling and prompts of its sentence-transformers files, and its special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, Unpack, cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from ..errors import InputError
from .assembly import assemble, assemble_encoder
from .config import MixLMConfig, Pooling, Residual
from .families import Family, answer_weights, longest_sequence, opened
from .hub import HubOptions, checked, complete, load_backbone
from .item_encoder import ItemEncoder
from .network import Network
from .template import around_texts

__all__ = ["FromBackbones", "bi_encoder"]

LONGEST = 256  # tokens of a text
READ = ("Transformer", "Pooling", "Normalize")  # modules of sentence-transformers that MixLM supports
POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
OWN_POOLING = 'choose pooling="mean", "cls" or "last" yourself (the document embedding it starts from is then another)'


class FromBackbones(Network):
    """Adds ``from_backbones`` to MixLM, which makes one from two plain language models."""

    @classmethod
    def from_backbones(
        cls,
        item_encoder: str | Path | None,
        ranker: str | Path,
        *,
        vectors: int = 0,
        tokens: int = 4,
        memory_tokens: int = 0,
        pooling: Pooling | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        prompt: str | None = None,
        residual: Residual | None = None,
        title_tokens: int = 0,
        max_query_tokens: int = 256,
        max_document_tokens: int = 256,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Create an untrained MixLM from two checkpoints of plain language models (folders or hub ids).

        With the residual ``"cosine"`` and without memory tokens it ranks like the item encoder as a bi-encoder. Pooling
        and prompts come from the checkpoint's sentence-transformers files, if it has them; the tokenizer adds the
        special tokens. (A Dense layer after the pooling is not read.)

        Args:
            item_encoder: an embedding model, or any plain language model. None: documents are vectors of your own.
            ranker: a language model. The readout of a decoder starts from its language model head, that of an encoder
                from zero.
            vectors: the width of such vectors; a document has ``tokens`` of them. A new linear layer, the projector,
                maps them to the ranker's hidden size.
            tokens: the largest token budget: embedding tokens per document.
            memory_tokens: learned tokens appended to each document, whose states replace pooled ones; 0: none.
            pooling: ``"last"``, ``"mean"`` or ``"cls"``; by default the checkpoint's own, else ``"last"`` for decoders
                and ``"mean"`` for bidirectional encoders.
            query_prompt: text before each query in the item encoder ("query: " for e5 models); by default the
                checkpoint's own.
            document_prompt: the same for documents ("passage: ").
            prompt: the ranker's prefix, with ``{text}`` for the query.
            residual: what is added to the ranker's score: ``"none"``, ``"cosine"`` or ``"late"`` (cosine and late
                interaction). By default the cosine, or none for vectors of your own.
            title_tokens: the most tokens of a document's title that the ranker reads as text beside its embedding
                tokens; 0: none.
            max_query_tokens: longest query in tokens, with its prompt.
            max_document_tokens: longest document in tokens.
            **hub: as in ``from_pretrained``; a ``revision`` must exist for both checkpoints.

        Raises:
            InputError: not a checkpoint, an unsupported architecture, or lengths that do not fit.
        """
        options, where = checked(hub), None
        if (item_encoder is None) == (not vectors):
            raise InputError(
                "give an item encoder or, where documents are vectors of your own, their width: one of the two"
            )
        if item_encoder is not None:
            where, encoder_family, encoder_tokenizer = opened(str(item_encoder), options)
            given = {"pooling": pooling, "query_prompt": query_prompt, "document_prompt": document_prompt}
            read_as = _read_as(where, encoder_family, encoder_tokenizer, options, **given)
        elif pooling or query_prompt or document_prompt:
            raise InputError("pooling, query_prompt and document_prompt are of an item encoder: vectors have none")
        else:
            read_as = {"pooling": "last", "template": "{text}"}
        source, family, tokenizer = opened(str(ranker), options)
        config = MixLMConfig(
            tokens=tokens,
            memory_tokens=memory_tokens,
            prompt=family.prompt(tokenizer) if prompt is None else prompt,
            score_token=family.score_token(tokenizer),
            residual=residual or ("none" if vectors else "cosine"),
            title_tokens=title_tokens,
            max_query_tokens=max_query_tokens,
            max_document_tokens=max_document_tokens,
            vectors=vectors,
            **read_as,
        )
        encoder = None if where is None else (load_backbone(where, **options), encoder_tokenizer)
        if family.causal:
            head = complete(AutoModelForCausalLM, source, **options)
            model = assemble(cls, config, encoder, (cast(PreTrainedModel, head.base_model), tokenizer))
            with torch.no_grad():
                model.readout.score.weight.copy_(answer_weights(head, tokenizer)[None])
        else:
            model = assemble(cls, config, encoder, (load_backbone(source, **options), tokenizer))
        return model.eval()


def bi_encoder(source: str, *, hub: dict[str, Any]) -> ItemEncoder:
    """An embedding model with its own pooling and prompts, one embedding token per document, in float32.

    It reads 256 tokens of a text, or as many as it can. Raises InputError for a checkpoint that cannot be read.
    """
    source, family, tokenizer = opened(source, hub)
    settings = _read_as(source, family, tokenizer, hub)
    backbone = load_backbone(source, **hub)
    longest = min(LONGEST, longest_sequence(backbone))
    config = MixLMConfig(tokens=1, prompt="{text}", score_token="", max_document_tokens=longest, **settings)
    return assemble_encoder(config, backbone, tokenizer).eval()


def _read_as(
    source: str, family: Family, tokenizer: PreTrainedTokenizerBase, hub: dict[str, Any], **given: str | None
) -> dict[str, Any]:
    """MixLMConfig keywords for how an item encoder reads texts: the ``given`` ones, else the checkpoint's."""
    own = {} if given.get("pooling") else _convention(source, **hub)
    # what the tokenizer itself puts around a text: "[CLS]{text}[SEP]", "{text}<|endoftext|>"
    template = "{text}".join(around_texts(tokenizer, 1)) if own else family.text_template(tokenizer)
    plain = {"pooling": family.pooling, "query_prompt": "", "document_prompt": ""}
    read_as = plain | own | {name: value for name, value in given.items() if value is not None}
    if family.causal and read_as["pooling"] == "cls":
        raise InputError(f"{source!r} is a decoder: its first position sees no text, so pooling cannot be cls")
    return {"template": template, **read_as}


def _convention(source: str, **options: Any) -> dict[str, str]:
    """The pooling and prompts that an embedding model expects, from ``modules.json`` and the files it names.

    Empty for a checkpoint that is not a sentence-transformers model. Raises InputError for a pooling, or a module after
    it, that MixLM does not support.
    """
    modules = _json(source, "modules.json", **options)
    pooling = next((module["path"] for module in modules or [] if module["type"].endswith(".Pooling")), None)
    if pooling is None:
        return {}
    other = next((module["type"].rpartition(".")[2] for module in modules if not module["type"].endswith(READ)), None)
    if other is not None:
        raise InputError(f"{source!r} has a module {other} after its pooling, which MixLM does not have: {OWN_POOLING}")
    settings = _json(source, f"{pooling}/config.json", **options) or {}
    mode = settings.get("pooling_mode") or _older_mode(settings)
    if mode not in POOLINGS:
        raise InputError(f"{source!r} pools by {mode!r}, which MixLM does not have: {OWN_POOLING}")
    prompts = (_json(source, "config_sentence_transformers.json", **options) or {}).get("prompts") or {}
    document = prompts.get("document") or prompts.get("passage") or ""
    return {"pooling": POOLINGS[mode], "query_prompt": prompts.get("query") or "", "document_prompt": document}


def _older_mode(settings: Mapping[str, Any]) -> str:
    """The pooling mode of a configuration older than sentence-transformers 6, which has one switch per mode."""
    on = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value is True]
    return "+".join(name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for name in on)


def _json(source: str, name: str, **options: Any) -> Any:
    """A JSON file of a checkpoint (folder or hub id), or None if it has no such file."""
    path = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **options,
    )
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
