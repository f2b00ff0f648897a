"""One model for several corpora: their documents as one corpus, and the training queries of all.

    python docs/examples/several_corpora.py DATA FOLDER
    mixlm-rerank distill FOLDER/corpus.jsonl.gz --queries FOLDER/queries.tsv --teacher CROSS_ENCODER --output fitted

The name of its collection stands before every id.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import typer

from mixlm_rerank.systems.collections import open_collection, open_documents

NAMES = ["msmarco-pool", "beir-nfcorpus", "beir-scifact"]  # BEIR folders in DATA


def join(data: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as corpus, open(folder / "queries.tsv", "w") as queries:
        for name in NAMES:
            for document in open_documents(str(data / name)):
                row = {"_id": f"{name}-{document.docid}", "title": document.title, "text": document.text}
                corpus.write(json.dumps(row) + "\n")
            for qid, query in open_collection(data / name, "train").queries.items():
                queries.write(f"{name}-{qid}\t{' '.join(query.split())}\n")


if __name__ == "__main__":
    typer.run(join)
