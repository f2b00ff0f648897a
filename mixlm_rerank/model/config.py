"""The configuration of a MixLM: token budget, pooling, templates, length limits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from pathlib import Path
from typing import Literal, get_args

from ..errors import InputError

__all__ = ["Head", "MixLMConfig", "Pooling", "Residual"]

EXPORTED = "onnx.json"  # beside the configuration of an exported model, see ..onnx

Pooling = Literal["last", "mean", "cls", "clusters"]
Residual = Literal["none", "cosine", "late"]
Head = Literal["linear", "tanh", "relu", "gelu", "gelu+norm"]
FORMAT_VERSION = 2  # 1: without mix layer
KINDS: dict[str, tuple[type, str]] = {"int": (Integral, "a whole number"), "bool": (bool, "true or false")}


@dataclass(frozen=True)
class MixLMConfig:
    """Everything that defines a MixLM, except its weights and tokenizers.

    Attributes:
        tokens: the largest token budget: the number of embedding tokens kept per document. Any smaller budget can be
            chosen at query time; budget k reads the *last* k.
        pooling: where embedding tokens come from. ``"last"``: final hidden states of the last positions (the paper's
            last-N sampling). ``"mean"``: means of clusters of similar states, seeded at the rarest words, the heaviest
            last; then the first state; then the mean of all. ``"cls"``: as ``"mean"``, with the last two exchanged. In
            all three the last embedding token is the document embedding of the bi-encoder that the item encoder was
            initialised from. ``"clusters"``, for encoders with a mix layer: cluster means only, each with the logarithm
            of its size, which raises the ranker's attention to it.
        memory_tokens: learned tokens appended to every document. Their states replace all embedding tokens but the last
            (``"mean"``, ``"cls"``), or the last text positions (``"last"``). 0: none.
        residual: what the item encoder adds to the ranker's log-odds. ``"cosine"``: ``w * cos(query embedding, document
            embedding)`` (after ResRank, 2604.22180), so that an untrained MixLM without memory tokens ranks like the
            bi-encoder it was initialised from. ``"late"``: the cosine, and late interaction between the query's states
            and the embedding tokens (ColBERT's score, 2004.12832). ``"none"``: nothing.
        prompt: what the ranker reads, with ``{text}`` where the query goes. The document and ``score_token`` follow. If
            the prompt has ``{document}``, the document goes there, and the rest of the prompt follows it.
        score_token: the token after the document whose last hidden state is read out (the paper's EOS). Unused with
            ``{document}``: then it is the last token, or with a bidirectional ranker and a mix layer the first (CLS).
        mix_layer: the layer of the ranker that embedding tokens enter. 0: the input, as in the paper. m > 0: the prefix
            goes through layers 0 to m - 1 alone, and embedding tokens are states of the item encoder before any final
            norm: those of layer m, if the item encoder is the ranker's own lower layers.
        fixed_documents: for encoders with a mix layer: above it a document's states stay as they enter. Only the
            query's change, attending to both (MICE's cross-attention, 2602.16299): two thirds of the time at k = 8.
        document_position: position of a document's first token in the item encoder; what precedes it starts at 0.
        title_tokens: the most tokens of a document's title that the ranker reads as text, before its embedding tokens
            (as the paper does with title and company). Needs mix layer 0. 0: no title.
        head: what the readout does before its linear layer: a dense layer and this activation.
        template: what the item encoder reads, with ``{text}`` where the query or document goes. With a mix layer, the
            part before ``{text}`` stands for the query, and its states are not part of the document.
        query_prompt, document_prompt: put before each text that the item encoder reads ("query: ").
        max_query_tokens, max_document_tokens: longest sequence, template included. Only ``{text}`` is ever truncated.
        vectors: the width of the user's own document vectors, which replace the item encoder: the ``tokens`` vectors of
            a document are its embedding tokens. 0: an item encoder reads documents.
    """

    tokens: int
    pooling: Pooling
    prompt: str
    score_token: str
    template: str
    query_prompt: str = ""
    document_prompt: str = ""
    memory_tokens: int = 0
    residual: Residual = "cosine"
    mix_layer: int = 0
    fixed_documents: bool = False
    document_position: int = 0
    title_tokens: int = 0
    head: Head = "linear"
    max_query_tokens: int = 256
    max_document_tokens: int = 256
    vectors: int = 0
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind, told = KINDS.get(str(field.type), (str, "a string"))
            if not isinstance(value, kind):
                raise InputError(f"{field.name} must be {told}, not {value!r}")
        if self.tokens < 1:
            raise InputError(f"tokens must be at least 1, not {self.tokens}")
        for name, choices in (("pooling", Pooling), ("residual", Residual), ("head", Head)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(f"{name} must be one of {', '.join(get_args(choices))}, not {getattr(self, name)!r}")
        if self.pooling == "clusters" and (not self.mix_layer or self.memory_tokens or self.residual != "none"):
            raise InputError("pooling 'clusters' needs a mix layer, and neither memory tokens nor a residual")
        if min(self.mix_layer, self.document_position, self.title_tokens) < 0:
            raise InputError("mix_layer, document_position and title_tokens must not be negative")
        if self.title_tokens and self.mix_layer:
            raise InputError(
                f"title_tokens needs mix layer 0, not {self.mix_layer}: below a mix layer the ranker reads the query "
                "alone, and every candidate's title would have to pass these layers for each query"
            )
        if self.vectors < 0:
            raise InputError(f"vectors must be the width of a document's vectors, or 0, not {self.vectors}")
        if self.vectors and (self.residual != "none" or self.mix_layer or self.memory_tokens or self.title_tokens):
            raise InputError(
                "vectors of your own go with residual 'none', and without mix layer, memory tokens, titles"
            )
        if self.fixed_documents and not self.mix_layer:
            raise InputError("fixed_documents needs a mix layer")
        if self.mix_layer and "{document}" not in self.prompt:
            raise InputError(f"with a mix layer the prompt must say where the {{document}} goes: {self.prompt!r}")
        needed = self.tokens if self.pooling == "last" else self.tokens - 1
        if self.memory_tokens and self.memory_tokens < needed:
            raise InputError(
                f"{self.tokens} embedding tokens need {needed} memory tokens, not {self.memory_tokens} (or 0 for none)"
            )
        for name in ("prompt", "template"):
            if getattr(self, name).count("{text}") != 1:
                raise InputError(f"{name} must contain {{text}} exactly once: {getattr(self, name)!r}")
        if self.prompt.count("{document}") > 1 or "{text}" in self.suffix:
            raise InputError(f"the prompt must contain {{document}} at most once, after {{text}}: {self.prompt!r}")

    @property
    def prefix(self) -> str:
        """The part of the prompt before the document, with ``{text}`` where the query goes."""
        return self.prompt.partition("{document}")[0]

    @property
    def suffix(self) -> str:
        """The part of the prompt after the document, or the score token."""
        return self.prompt.partition("{document}")[2] if "{document}" in self.prompt else self.score_token

    def check_budget(self, tokens: int | None) -> int:
        """The budget to use: ``tokens``, or the largest one for ``None``. Raises InputError if it is out of range."""
        if tokens is None:
            return self.tokens
        if not isinstance(tokens, Integral) or isinstance(tokens, bool) or not 1 <= tokens <= self.tokens:
            raise InputError(
                f"tokens must be a whole number between 1 and {self.tokens} (this model's largest budget), not {tokens}"
            )
        return tokens

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> MixLMConfig:
        """Raises InputError if the file is missing, not ours, or of a newer format."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path.parent} is not a saved MixLM: it has no {path.name}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is not valid JSON: {error}") from None
        version = values.get("format_version") if isinstance(values, dict) else None
        if version is None:
            raise InputError(
                f"{path} is not a MixLM configuration. To get the ranking of a cross-encoder, distill it: mixlm-rerank "
                f"distill CORPUS --teacher {path.parent} --output FOLDER. For an untrained MixLM from language models: "
                "mixlm-rerank model init FOLDER --item-encoder CHECKPOINT --ranker CHECKPOINT"
            )
        if type(version) is not int or version < 1:
            raise InputError(f"{path} is damaged: its format_version must be a whole number from 1 on, not {version!r}")
        if version > FORMAT_VERSION:
            raise InputError(f"{path} has format version {version}; this release reads up to {FORMAT_VERSION}: upgrade")
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"{path} has unknown keys {unknown}")
        try:
            return cls(**values | {"format_version": FORMAT_VERSION})
        except (TypeError, InputError) as error:
            raise InputError(f"{path} is not a whole MixLM configuration: {error}") from None
