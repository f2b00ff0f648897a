"""An exported MixLM: encodes documents and scores candidates in ONNX Runtime, without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, optional_import
from ..folders import settle
from ..model.config import EXPORTED, MixLMConfig
from ..model.known_answer import QUERY, TEXTS, check_known_answer
from ..model.template import ItemTexts, prefix_template
from ..progress import Progress

__all__ = ["CONFIG", "GRAPH", "KNOWN_ANSWER", "TOKENIZER", "About", "LightTokenizer", "OnnxMixLM", "is_exported"]
__all__ += ["library"]

CONFIG, KNOWN_ANSWER = "config.json", "known_answer.json"
GRAPH, TOKENIZER = "{}.onnx", "{}.tokenizer.json"  # of item_encoder and ranker
FORMAT_VERSION = 1
# Positions per call: bounds the memory, as in the shared-prefix scorer.
POSITIONS = 4096


@dataclass(frozen=True)
class About:
    """What graphs, tokenizers and configuration do not say about an exported model.

    Attributes:
        fingerprints: of the item encoder; new indexes get the first.
        token_size: components of an embedding token.
        query_tokens: the longest query of the item encoder, with its template.
        unknown: ids of the unknown tokens of item encoder and ranker.
    """

    fingerprints: list[str]
    token_size: int
    query_tokens: int
    unknown: list[int | None]
    format_version: int = FORMAT_VERSION

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> About:
        """Raises InputError if the file is missing, not ours, or of a newer format."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            about = cls(**{field.name: values[field.name] for field in fields(cls)})
        except FileNotFoundError:
            raise InputError(
                f"{path.parent} is not an exported MixLM: it has no {path.name} (make one where PyTorch is installed: "
                "mixlm-rerank model export FOLDER --model MODEL)"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} cannot be read: {error!r}") from None
        if about.format_version != FORMAT_VERSION:
            raise InputError(f"{path} has format version {about.format_version}, not {FORMAT_VERSION}: export it anew")
        return about


class OnnxMixLM:
    """An exported model that replaces a ``MixLM`` in ``Reranker`` and ``TokenIndex``, without PyTorch.

    Embedding tokens and log-odds equal those of the original model within 1e-4, so it accepts the indexes of that model
    and rejects others. It cannot read full texts itself (``verify_top``).
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """Use ``from_pretrained``, which also checks the known answer."""
        about = About.load(folder / EXPORTED)
        self.config = MixLMConfig.load(folder / CONFIG)
        self.name = str(folder)
        self.item_encoder = OnnxItemEncoder(folder, self.config, about, threads)
        self.ranker = OnnxRanker(folder, self.config, about, threads)
        self._fingerprints = about.fingerprints

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, threads: int | None = None) -> OnnxMixLM:
        """Load a model that ``mixlm-rerank model export`` has written.

        Args:
            folder: the exported model.
            threads: threads of ONNX Runtime; by default one for each physical core.

        Raises:
            InputError: not an exported model, or one that does not give its known answer.
            MissingDependency: onnxruntime or tokenizers is not installed.
        """
        folder = Path(folder)
        settle(folder)
        model = cls(folder, threads)
        check_known_answer(model.known_answers, folder / KNOWN_ANSWER)
        return model

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the item encoder, the same as in the original model."""
        return self._fingerprints[0]

    def accepts(self, fingerprint: str) -> bool:
        """Whether an index with that fingerprint holds tokens of this item encoder."""
        return fingerprint in self._fingerprints

    def encode(self, texts: Sequence[str], *, bar: Progress | None = None) -> NDArray[np.float32]:
        """Embedding tokens of documents: float32 [n, tokens, d]."""
        return self.item_encoder.encode(texts, bar=bar)

    def score(self, query: str, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embedding tokens, float32 [n, k, d] -> log-odds, float32 [n]."""
        return self.score_batch([query], [tokens])[0]

    def score_batch(self, queries: Sequence[str], tokens: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Several queries, one after the other: a float32 [n, k, d] per query -> a float32 [n] per query."""
        states: Sequence[NDArray[np.float32] | None]
        states = [None] * len(queries) if self.config.residual == "none" else self.item_encoder.states(queries)
        return [self.ranker.scores(*each) for each in zip(queries, tokens, states, strict=True)]

    def known_answers(self) -> list[float]:
        """Log-odds of a fixed query and fixed texts, which a loaded model must reproduce."""
        return [float(self.score(QUERY, self.encode([text]))[0]) for text in TEXTS]


class OnnxItemEncoder(ItemTexts):
    """Text -> embedding tokens. One text per call: no padding, and no text's tokens depend on another text."""

    def __init__(self, folder: Path, config: MixLMConfig, about: About, threads: int | None) -> None:
        tokenizer: Any = LightTokenizer(folder / TOKENIZER.format("item_encoder"), about.unknown[0])
        super().__init__(tokenizer, config, about.query_tokens)
        self.token_size = about.token_size
        self._session = _session(folder / GRAPH.format("item_encoder"), threads)

    def encode(self, texts: Sequence[str], *, bar: Progress | None = None) -> NDArray[np.float32]:
        """Embedding tokens of documents, float32 [n, tokens, d]. ``bar.update(1)`` is called after every text.

        Raises InputError if a text gives a token that is not finite (a broken checkpoint).
        """
        ids = self.document_ids(texts)
        out = np.empty((len(ids), self.config.tokens, self.token_size), dtype=np.float32)
        for row, own in enumerate(ids):
            out[row] = self._run("tokens", own)
            if not np.isfinite(out[row]).all():
                raise InputError(f"the item encoder gave a non-finite embedding token for text {row}: broken weights?")
            if bar is not None:
                bar.update(1)
        return out

    def states(self, queries: Sequence[str]) -> list[NDArray[np.float32]]:
        """Final hidden states of queries, for the residual. float32 [length, d] each."""
        return [self._run("states", ids) for ids in self.query_ids(queries)]

    def _run(self, output: str, ids: list[int]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run([output], {"ids": np.array([ids], dtype=np.int64)})[0]
        return found


class OnnxRanker:
    """A query and the embedding tokens of its candidates -> log-odds."""

    def __init__(self, folder: Path, config: MixLMConfig, about: About, threads: int | None) -> None:
        self.tokenizer: Any = LightTokenizer(folder / TOKENIZER.format("ranker"), about.unknown[1])
        self._prompt = prefix_template(cast(Any, self.tokenizer), config)
        self._session = _session(folder / GRAPH.format("ranker"), threads)

    def scores(
        self, query: str, tokens: NDArray[np.float32], states: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Embedding tokens, float32 [n, k, d], and :meth:`OnnxItemEncoder.states` of the query -> float32 [n]."""
        (ids,) = self._prompt.ids([query])
        fed = {"prefix": np.array(ids, dtype=np.int64)} | ({} if states is None else {"states": states})
        size = max(1, POSITIONS // (tokens.shape[1] + 1))  # reading the prefix again for each part costs little
        parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
        found = [self._session.run(None, {**fed, "tokens": part.astype(np.float32, copy=False)})[0] for part in parts]
        return np.concatenate(found) if found else np.empty(0, dtype=np.float32)


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds an exported model."""
    return (Path(folder) / EXPORTED).is_file()


def _session(path: Path, threads: int | None) -> Any:
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    # item encoder and ranker take turns: the threads of one must not spin while the other works
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has one class per status code
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


class LightTokenizer:
    """The part of a Transformers tokenizer that templates use, over a ``tokenizer.json``.

    Args:
        unknown: id of the unknown token, if there is one.
    """

    def __init__(self, path: Path, unknown: int | None) -> None:
        tokenizers = library("tokenizers")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise InputError(f"{path} cannot be read: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.unk_token_id = unknown
        self.added_tokens_decoder = self._tokenizer.get_added_tokens_decoder()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of a part of a template; special tokens in it are read as such."""
        self._tokenizer.encode_special_tokens = False
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool, split_special_tokens: bool, **_: bool
    ) -> dict[str, list[Any]]:
        """``input_ids`` and ``offset_mapping`` of each text."""
        self._tokenizer.encode_special_tokens = split_special_tokens
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return {"input_ids": [one.ids for one in found], "offset_mapping": [one.offsets for one in found]}


def library(name: str, extra: str = "onnx") -> Any:
    """Import a library that exported models need. Raises MissingDependency, which names the extra, without it."""
    with optional_import(f"{name} is not installed, which ONNX models need", extra):
        return import_module(name)
