"""Inputs of benchmarks: texts of an exact length in tokens, random token indexes, decoders with random weights.

A decoder's speed does not depend on its weights. Its shape is Qwen3's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from mixlm_rerank.errors import InputError
from mixlm_rerank.index import TokenIndex
from mixlm_rerank.index.exchange import fill
from mixlm_rerank.index.local import LocalStore
from mixlm_rerank.index.manifest import Manifest, Packed
from mixlm_rerank.index.plan import DOCID_MAP_BYTES
from mixlm_rerank.model import MixLM
from mixlm_rerank.model.assembly import assemble
from mixlm_rerank.model.config import MixLMConfig
from mixlm_rerank.model.families import DecoderFamily
from mixlm_rerank.model.ranker import Ranker
from mixlm_rerank.model.template import text_ids
from mixlm_rerank.types import Document

__all__ = ["QWEN3", "DecoderShape", "Words", "docid", "index_bytes", "random_docids", "random_index", "random_mixlm"]
__all__ += ["full_text", "saved_mixlm", "scores"]

LONG, ENOUGH = 3, 100  # words have at least three letters, if a hundred such words exist
CHUNK = 4096  # documents per commit; 50 MB of float32 at 8 tokens of 384 dimensions
EOS, PAD, UNK = "<eos>", "<pad>", "<unk>"
WORDS = [f"{a}{b}{c}" for a, b, c in product("bdfgklmnprst", "aeiou", "bdfgklmnprst")]  # bab, bad ...


class Words:
    """Words that are one token each, at the start of a text and after a space, so that n words are n tokens.

    ``draw``: their random generator. Raises InputError for a tokenizer without such words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.draw = tokenizer, Random(0)
        special = set(tokenizer.all_special_tokens)
        pieces = [piece for piece in tokenizer.get_vocab() if piece not in special]
        words = {tokenizer.convert_tokens_to_string([piece]).strip() for piece in pieces}
        plain = sorted(word for word in words if word.isascii() and word.isalpha())
        twice = [f"{word} {word}" for word in plain]
        ours = text_ids(tokenizer, twice)  # special tokens in a text as plain characters, unlike in the next line
        theirs = tokenizer(twice, add_special_tokens=False)["input_ids"] if twice else []
        known = [word for word, *both in zip(plain, ours, theirs, strict=True) if [*map(len, both)] == [2, 2]]
        if not known:
            raise InputError(
                "no word of this tokenizer's vocabulary is one token: texts of a known length are not made"
            )
        long = [word for word in known if len(word) >= LONG]
        self._words = long if len(long) >= ENOUGH else known

    def text(self, tokens: int) -> str:
        """A text of exactly ``tokens`` tokens, special tokens not counted."""
        return " ".join(self.draw.choices(self._words, k=tokens))

    def texts(self, count: int, tokens: int) -> list[str]:
        return [self.text(tokens) for _ in range(count)]

    def prompt(self, ranker: Ranker) -> int:
        """Number of tokens in the ranker's prefix without the query's."""
        return len(ranker.prefixes([self._words[0]])[0]) - 1


def docid(row: int) -> str:
    return f"d{row:07d}"


def random_docids(count: int, documents: int, draw: Random) -> list[str]:
    """``count`` different docids of an index of ``documents`` documents, in random order."""
    return [docid(row) for row in draw.sample(range(documents), count)]


def index_bytes(manifest: Manifest, documents: int) -> int:
    """Approximate bytes on disk of an index of ``documents`` documents."""
    return documents * (manifest.quantiser.record_bytes + DOCID_MAP_BYTES)


def random_index(folder: Path, manifest: Manifest, documents: int, progress: bool = False) -> TokenIndex:
    """An index of standard normal embedding tokens; docids are :func:`docid` of 0, 1, ...

    Written like an import: a real index, created quickly. An interrupted call resumes and gives the same bytes; a
    finished index is opened. Raises InputError if the disk has no room for it.
    """

    def parts() -> Iterator[tuple[str, Packed]]:
        for start in range(0, documents, CHUNK):
            rows = range(start, min(start + CHUNK, documents))
            shape = (len(rows), manifest.tokens, manifest.dim)
            tokens = np.random.default_rng(start).standard_normal(shape, dtype=np.float32)
            yield "", Packed.of([Document(docid(row), "") for row in rows], manifest.quantiser.pack(tokens))

    if not (folder / "data.mdb").exists() or not LocalStore(folder).manifest.complete:
        fill(folder, manifest, documents, parts(), "random tokens", progress=progress)
    return TokenIndex(folder)


@dataclass(frozen=True)
class DecoderShape:
    """Shape of a ranker, with a feed-forward part three times as wide as its states; and of its input."""

    layers: int
    hidden: int
    heads: int
    key_heads: int
    head: int
    encoder_layers: int = 1  # layers of the item encoder, which scoring does not use
    prefix: int = 60  # tokens of prompt and query together


QWEN3 = DecoderShape(layers=28, hidden=1024, heads=16, key_heads=8, head=128)  # 0.6B parameters, the paper's shape


def random_mixlm(shape: DecoderShape, tokens: int, document: int, device: str = "cpu") -> MixLM:
    """A random MixLM in float32 without residual. ``tokens``: budget; ``document``: tokens of the longest document."""
    tokenizer, family, backbones = _tokenizer(), DecoderFamily(), []
    torch.manual_seed(0)
    for layers in (shape.encoder_layers, shape.layers):
        config = Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=3 * shape.hidden,
            num_hidden_layers=layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_heads,
            head_dim=shape.head,
            max_position_embeddings=shape.prefix + document + 64,
        )
        with torch.device(device):
            backbones.append(Qwen3Model(config))
    settings = MixLMConfig(
        tokens=tokens,
        pooling="last",
        prompt=family.prompt(tokenizer),
        score_token=family.score_token(tokenizer),
        template=family.text_template(tokenizer),
        residual="none",
        max_query_tokens=shape.prefix,
        max_document_tokens=document,
    )
    model = assemble(MixLM, settings, (backbones[0], tokenizer), (backbones[1], tokenizer)).to(device).eval()
    nn.init.normal_(model.readout.score.weight, std=shape.hidden**-0.5)
    return model


def saved_mixlm(folder: Path, shape: DecoderShape = QWEN3) -> Path:
    """Folder of a random MixLM (budget 1, documents of 150 tokens) that other processes can load; made if missing."""
    if not (folder / "config.json").is_file():  # written last
        device = "cuda" if torch.cuda.is_available() else "cpu"  # takes a minute on two cores
        random_mixlm(shape, 1, 150, device).save_pretrained(folder, half=True)
    return folder


@torch.inference_mode()
def scores(model: MixLM, query: str, documents: Tensor, *, shared: bool, at_once: int) -> Tensor:
    """Log-odds of texts or embedding tokens, given as ranker inputs [n, length, d], by the ranker's packed pass.

    ``shared``: the prefix is in a pass once, else once per document; ``at_once``: documents per pass.
    """
    (own,) = model.ranker.prefixes([query])
    found = []
    for part in documents.split(at_once):
        prefixes, items = ([own], [part]) if shared else ([own] * len(part), list(part[:, None]))
        found.append(model.readout(torch.cat(model.ranker.forward_packed(prefixes, items))))
    return torch.cat(found).cpu()


@torch.inference_mode()
def full_text(model: MixLM, query: str, texts: Sequence[str], *, shared: bool, at_once: int) -> Tensor:
    """Log-odds of texts of one length, with the prefix once per pass (by :func:`scores`) or once per document.

    The latter uses Transformers' own forward pass: without a mask its kernel skips the part above the diagonal.
    """
    (inputs,), (prefix,) = model.ranker.inputs([query]), model.ranker.prefixes([query])
    documents = torch.stack(model.ranker.documents(texts, [len(inputs)] * len(texts)))
    if shared:
        return scores(model, query, documents, shared=True, at_once=at_once)
    found = []
    for part in documents.split(at_once):
        before, after = (own.expand(len(part), -1, -1) for own in (prefix.states, prefix.tail))
        states = model.ranker.backbone(inputs_embeds=torch.cat([before, part, after], dim=1), use_cache=False)[0]
        found.append(model.readout(states[:, -1]))
    return torch.cat(found).cpu()


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word; its vocabulary includes the prompt's words."""
    split = pre_tokenizers.Whitespace()
    prompt = DecoderFamily().prompt(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel())))
    known = [piece for piece, _ in split.pre_tokenize_str(prompt)]
    words = dict.fromkeys([PAD, UNK, EOS, "yes", "no", *known, *WORDS])
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNK, eos_token=EOS)
