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

    Load one with ``from_pretrained`` (a saved model, or ``"default"``). Create an untrained one with ``from_backbones``
    (from two Hugging Face checkpoints) or ``from_cross_encoder``. Rank with ``mixlm_rerank.Reranker``, or score with
    ``mixlm_rerank.scoring.SharedPrefixScorer``.
    """

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write config, weights (safetensors), both tokenizers, a model card and a known answer into ``folder``.

        Args:
            folder: where to save the model.
            half: save the backbones in float16, half the size. The loaded model is then the rounded one, with its own
                fingerprint.
        """
        save(self, Path(folder), half=half)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        title_tokens: int | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a saved MixLM.

        Args:
            name: ``"default"``, a folder, or a Hugging Face hub id.
            device: where to put it; by default a GPU, if there is one.
            dtype: of the ranker: ``"float32"``, ``"bfloat16"``, ``"float16"``, or (on a CPU) ``"int8"``. By default
                float32, on a GPU bfloat16. Item encoder and readout are always float32.
            title_tokens: read so many tokens of a document's title as text, whatever the saved model does; 0: none. A
                model that has not read titles before must be trained to.
            **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, as in Transformers.

        Raises:
            InputError: there is no such model, it is not a MixLM, or it does not give its known answer.
        """
        return load(cls, name, device=device, dtype=dtype, title_tokens=title_tokens, hub=checked(hub))

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
            vectors: the width of such vectors: ``tokens`` of them stand for a document. A new linear layer, the
                projector, takes them to the ranker's size.
            tokens: the largest token budget: embedding tokens per document.
            memory_tokens: learned tokens appended to each document, whose states replace pooled ones; 0: none.
            pooling: ``"last"``, ``"mean"`` or ``"cls"``; by default the checkpoint's own, else ``"last"`` for decoders
                and ``"mean"`` for bidirectional encoders.
            query_prompt: text before each query in the item encoder ("query: " for e5 models); by default the
                checkpoint's own.
            document_prompt: the same for documents ("passage: ").
            prompt: the ranker's prefix, with ``{text}`` for the query.
            residual: what is added to the ranker's score: ``"none"``, ``"cosine"`` or ``"late"`` (cosine and late
                interaction). By default the cosine; vectors of your own go with none.
            title_tokens: the most tokens of a document's title that the ranker reads as text beside its embedding
                tokens; 0: none.
            max_query_tokens: longest query in tokens, with its prompt.
            max_document_tokens: longest document in tokens.
            **hub: as in ``from_pretrained``; a ``revision`` must exist in both places.

        Raises:
            InputError: not a checkpoint, an unsupported architecture, or lengths that do not fit.
        """
        return from_backbones(
            cls,
            None if item_encoder is None else str(item_encoder),
            str(ranker),
            vectors=vectors,
            tokens=tokens,
            memory_tokens=memory_tokens,
            pooling=pooling,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            prompt=prompt,
            residual=residual or ("none" if vectors else "cosine"),
            title_tokens=title_tokens,
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
        """Cut a new MixLM out of a cross-encoder: its layers below ``mix_layer`` read documents alone.

        It differs from the checkpoint in two ways: below that layer documents do not attend to the query, and they
        are pooled to a few embedding tokens. Untrained, it ranks poorly; train it with ``mixlm-rerank distill``. In
        full-text mode it is the cross-encoder itself.

        Args:
            name: a folder or hub id, with a classification head of one label, or a decoder that answers yes or no.
            mix_layer: 1 to the last layer; by default half of the layers. With a higher layer a candidate costs less,
                and more of a document's encoding is independent of the query.
            tokens: the largest token budget.
            fixed_documents: for encoders: above the mix layer only the query's states change; they attend to query and
                document. A candidate then takes half to two thirds of the operations.
            prompt: for decoders: ``{text}`` stands for the query, ``{document}`` for the document. By default that of
                Qwen3-Reranker, if the tokenizer has its special tokens, else a plain question.
            answers: for decoders without a classification head: the word whose logit counts for a document, and
                optionally the one that counts against it, one token each. By default "yes" and "no".
            **hub: as in ``from_pretrained``.

        Raises:
            InputError: not a cross-encoder, or one of an unsupported kind.
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
