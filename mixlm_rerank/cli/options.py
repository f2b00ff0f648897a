"""Options that several commands share, and what they open."""

from __future__ import annotations

from typing import Annotated

import typer

from ..data import Corpus, open_corpus
from ..model import MixLM

__all__ = ["CORPUS_HELP", "Device", "Dtype", "Model", "Offline", "load_model", "open_documents"]

CORPUS_HELP = "JSONL file, BEIR folder, irds:DATASET (ir_datasets) or lucene:INDEX (Pyserini, stored documents)."

Model = Annotated[str, typer.Option("--model", help="'default', a MixLM folder, or a Hugging Face hub id.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda ... By default a GPU if there is one.")]
Dtype = Annotated[
    str | None, typer.Option("--dtype", help="float32, bfloat16 or float16; bfloat16 on a GPU, else float32.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub; use local files only.")]


def load_model(name: str, device: str | None = None, dtype: str | None = None, offline: bool = False) -> MixLM:
    return MixLM.from_pretrained(name, device=device, dtype=dtype, local_files_only=offline)


def open_documents(source: str) -> Corpus:
    """The corpus that ``source`` names (see ``CORPUS_HELP``)."""
    if source.startswith("lucene:"):
        from mixlm_rerank.integrations.pyserini import LuceneCorpus

        return LuceneCorpus(source.removeprefix("lucene:"))
    return open_corpus(source)
