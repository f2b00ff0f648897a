"""A MixLM, and the ways to make, load and save one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self, Unpack

import torch

from .checkpoint import load, save
from .config import Pooling, Residual
from .cross_encoder import from_cross_encoder
from .hub import HubOptions, checked
from .network import Network
from .start import from_backbones

__all__ = ["MixLM"]


class MixLM(Network):
    """Reads the query as text and each document as a few embedding tokens.

    Make one with :meth:`from_pretrained` (a saved model, ``"default"``) or :meth:`from_backbones` (a new one from two
    Hugging Face checkpoints). Score with :class:`mixlm_rerank.scoring.SharedPrefixScorer`, or through
    :class:`mixlm_rerank.Reranker`.
    """

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write config, weights (safetensors), both tokenizers, a model card and a known answer into ``folder``.

        ``half``: the backbones in float16, half the size. What is loaded then is the rounded model, with a fingerprint
        of its own.
        """
        save(self, Path(folder), half=half)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a saved MixLM.

        Args:
            name: ``"default"``, a folder, or a Hugging Face hub id.
            device: where to put it; a GPU if there is one, by default.
            dtype: of the ranker, ``"float32"``, ``"bfloat16"``, ``"float16"``, or (on a CPU)
                ``"int8"``; float32 by default, bfloat16 on a GPU. Item encoder and readout are always float32.
            hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``: see :class:`.hub.HubOptions`.

        Raises:
            InputError: no such model, not a MixLM, or one that does not give its known answer.
        """
        return load(cls, name, device=device, dtype=dtype, hub=checked(hub))

    @classmethod
    def from_backbones(
        cls,
        item_encoder: str | Path,
        ranker: str | Path,
        *,
        tokens: int = 4,
        memory_tokens: int = 0,
        pooling: Pooling | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        prompt: str | None = None,
        residual: Residual = "cosine",
        max_query_tokens: int = 256,
        max_document_tokens: int = 256,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """A new, untrained MixLM from two checkpoints of plain language models (folders or hub ids).

        With the residual ``"cosine"`` and without memory tokens it ranks like the item encoder as a bi-encoder: pooling
        and prompts are read from the checkpoint's sentence-transformers files, where it has them, and the tokens around
        a text are those that its tokenizer puts there. (A Dense layer after the pooling is not read.)

        Args:
            item_encoder: an embedding model, or any plain language model.
            ranker: its language model head gives the first readout (decoders); encoders start from a zero readout.
            tokens, memory_tokens, residual, max_query_tokens, max_document_tokens: see :class:`MixLMConfig`.
            pooling: ``"last"``, ``"mean"`` or ``"cls"``; by default what the checkpoint says, else ``"last"`` for
                decoders and ``"mean"`` for bidirectional encoders.
            query_prompt, document_prompt: put before a text by the item encoder ("query: " and "passage: " of the e5
                models); by default what the checkpoint says.
            prompt: the ranker's prefix, with ``{text}`` where the query goes.
            hub: as in :meth:`from_pretrained`; a ``revision`` must exist in both places.

        Raises:
            InputError: not a checkpoint, an architecture that MixLM cannot use, or lengths that do not fit.
        """
        return from_backbones(
            cls,
            str(item_encoder),
            str(ranker),
            tokens=tokens,
            memory_tokens=memory_tokens,
            pooling=pooling,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            prompt=prompt,
            residual=residual,
            max_query_tokens=max_query_tokens,
            max_document_tokens=max_document_tokens,
            hub=checked(hub),
        )

    @classmethod
    def from_cross_encoder(
        cls,
        name: str | Path,
        *,
        mix_layer: int | None = None,
        tokens: int = 8,
        fixed_documents: bool = False,
        prompt: str | None = None,
        answers: Sequence[str] | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """A new MixLM cut out of a cross-encoder: documents are read alone by its layers below ``mix_layer``.

        Only two things separate it from the checkpoint: up to that layer documents know nothing of the query, and they
        are pooled to a few embedding tokens. Untrained, its ranking is poor; train it by ``mixlm-rerank distill``. In
        full-text mode it is the cross-encoder itself.

        Args:
            name: a folder or hub id; with a classification head of one label, or a decoder that answers yes or no.
            mix_layer: 1 to the last layer, half of the layers by default. The higher, the less a candidate costs and
                the more a document's tokens depend on itself alone.
            tokens: the largest token budget.
            fixed_documents: of an encoder: above the mix layer only the query's states change, and attend to query and
                document: half to two thirds of the operations for a candidate.
            prompt: of a decoder: ``{text}`` stands for the query, ``{document}`` for the document; by default that of
                Qwen3-Reranker, if the tokenizer has its special tokens, else a plain question.
            answers: of a decoder without a classification head: the word whose logit counts for a document, and perhaps
                the one that counts against it, one token each; "yes" and "no" by default.
            hub: as in :meth:`from_pretrained`.

        Raises:
            InputError: not a cross-encoder, or one of a kind that MixLM does not know.
        """
        return from_cross_encoder(
            cls,
            str(name),
            mix_layer=mix_layer,
            tokens=tokens,
            fixed_documents=fixed_documents,
            prompt=prompt,
            answers=answers,
            hub=checked(hub),
        )
