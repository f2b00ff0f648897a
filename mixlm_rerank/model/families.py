"""The two families of backbones, decoders and bidirectional encoders, and everything that differs between them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from ..errors import InputError
from .config import Pooling
from .hub import in_cache, load_tokenizer
from .template import around_texts, plain_end

__all__ = ["BidirectionalFamily", "DecoderFamily", "Family", "answer_weights", "check_width", "family_of"]
__all__ += ["family_of_config", "has_segments", "longest_sequence", "opened", "position_offset"]

# From the model card of Qwen3-Reranker.
QWEN3_RERANKER = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {text}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


class DecoderFamily:
    """Causal language models: Qwen3, Llama, Mistral and the like."""

    causal = True
    pooling: Pooling = "last"

    def prompt(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The default prefix of the ranker."""
        return f"{tokenizer.bos_token or ''}Does the document answer the query? yes or no.\nQuery: {{text}}\nDocument: "

    def text_template(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The default template of the item encoder, for queries and documents."""
        return f"{tokenizer.bos_token or ''}{{text}}{_special(tokenizer, 'eos_token')}"

    def score_token(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The token after the document whose state is read out."""
        return _special(tokenizer, "eos_token")

    def pair_prompt(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The prompt of a cross-encoder, with ``{text}`` for the query and ``{document}`` for the document."""
        if "<|im_start|>" in tokenizer.get_vocab():
            return QWEN3_RERANKER
        start = tokenizer.bos_token or ""
        return f"{start}Query: {{text}}\nDocument: {{document}}\nDoes the document answer the query? yes or no:"

    def second_text(self, tokenizer: PreTrainedTokenizerBase, before: str) -> str:
        """The template of a document that is read alone by a cross-encoder's lower layers.

        ``before``: the part of the pair prompt between query and document.
        """
        return f"{tokenizer.bos_token or ''}{plain_end(tokenizer, before)}{{text}}"


class BidirectionalFamily:
    """Encoders: BERT, ModernBERT and the like. Query tokens see the query only, item tokens query and themselves."""

    causal = False
    pooling: Pooling = "mean"

    def text_template(self, tokenizer: PreTrainedTokenizerBase) -> str:
        return f"{_special(tokenizer, 'cls_token')}{{text}}{_special(tokenizer, 'sep_token')}"

    prompt = text_template

    def score_token(self, tokenizer: PreTrainedTokenizerBase) -> str:
        return _special(tokenizer, "sep_token")

    def pair_prompt(self, tokenizer: PreTrainedTokenizerBase) -> str:
        before, between, after = around_texts(tokenizer, 2)
        return f"{before}{{text}}{between}{{document}}{after}"

    def second_text(self, tokenizer: PreTrainedTokenizerBase, before: str) -> str:
        before, between, after = around_texts(tokenizer, 2)  # as after an empty query
        return f"{before}{between}{{text}}{after}"


Family = DecoderFamily | BidirectionalFamily


def _special(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    token = getattr(tokenizer, name)
    if token is None:
        raise InputError(f"the tokenizer has no {name}; set it, or give the templates and score_token yourself")
    return str(token)


def answer_weights(
    head: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str] = ("yes", "no")
) -> Tensor:
    """Initial weights of a decoder's readout: logit(yes) - logit(no) as weights of its states, float32 [hidden_size].

    ``words``: the answer that counts for a document, and optionally the one that counts against it.
    """
    rows: Tensor = head.get_output_embeddings().weight.detach().float()
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    if not 1 <= len(set(words)) == len(words) <= 2 or any(len(pieces) != 1 for pieces in ids):
        raise InputError(
            f"a decoder's answers must be one word or two, each one token of its tokenizer: {list(words)} are "
            f"{ids}. Choose others, or another ranker"
        )
    return rows[ids[0][0]] - rows[ids[1][0]] if len(ids) == 2 else rows[ids[0][0]]


def position_offset(backbone: PreTrainedModel) -> int:
    """Position id of the first token: 0, except for RoBERTa-like models, which count from ``padding_idx + 1``."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def longest_sequence(backbone: PreTrainedModel) -> int:
    """The most positions that a sequence may have. Raises InputError for a backbone that does not say."""
    config = backbone.config
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        raise InputError(f"{type(backbone).__name__} does not say how many positions it has (max_position_embeddings)")
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # of all layers, or of each layer type
    # beyond this length longrope rotates all positions of a batch differently: scores would depend on the batch
    longropes = [kind for kind in kinds if kind.get("rope_type") == "longrope"]
    short: list[int] = [kind["original_max_position_embeddings"] for kind in longropes]
    return min([positions, *short]) - position_offset(backbone)


def check_width(backbone: PreTrainedModel) -> None:
    """Raises InputError unless input embeddings are as wide as states, which embedding and memory tokens need."""
    width, size = cast(Tensor, backbone.get_input_embeddings().weight).shape[1], backbone.config.hidden_size
    if width != size:
        raise InputError(f"its input embeddings have {width} dimensions, and embedding or memory tokens {size}")


def has_segments(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> bool:
    """Whether a backbone has token types; with a ``tokenizer``, whether that also sets them for a pair of texts."""
    known = "token_type_ids" in inspect.signature(backbone.forward).parameters
    used = tokenizer is None or "token_type_ids" in tokenizer("a", "b")
    return known and getattr(backbone.config, "type_vocab_size", 0) > 1 and used


def family_of(source: str, **options: Any) -> Family:
    """The family of a checkpoint, from its configuration only. Raises InputError for other architectures."""
    if Path(source, "adapter_config.json").is_file() and not Path(source, "config.json").is_file():
        raise InputError(
            f"{source!r} holds an adapter (LoRA) without its base model: merge both with PEFT's merge_and_unload() and "
            "save_pretrained(FOLDER), and give that folder"
        )
    if not Path(source).is_dir() and (Path(source).is_absolute() or source.startswith(".")):
        raise InputError(f"there is no folder {source!r}")
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except Exception as error:  # a configuration may hold anything
        raise InputError(f"{source!r} is not a Hugging Face checkpoint that can be read here: {error}") from None
    return family_of_config(config, source)


def opened(source: str, hub: dict[str, Any]) -> tuple[str, Family, PreTrainedTokenizerBase]:
    """Locate a checkpoint without loading its weights. Returns its source, family and tokenizer."""
    source = in_cache(source, hub)
    return source, family_of(source, **hub), load_tokenizer(source, **hub)


def family_of_config(config: Any, source: str = "this model") -> Family:
    kind = config.model_type
    if getattr(config, "quantization_config", None):
        raise InputError(f"the weights of {source!r} are quantised: take the checkpoint that they were made from")
    if not config.is_encoder_decoder:
        if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
            return BidirectionalFamily()
        if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return DecoderFamily()
    raise InputError(
        f"{source!r} is a {kind} model; MixLM needs a decoder (Qwen3, Llama ...) or an encoder (BERT, ModernBERT ...)"
    )
