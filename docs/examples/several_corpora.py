"""One model for several corpora: their documents as one corpus, and some training queries of each.

    python docs/examples/several_corpora.py DATA FOLDER [--times 8]
    mixlm-rerank distill FOLDER/corpus.jsonl.gz --queries FOLDER/queries.tsv --teacher CROSS_ENCODER --output fitted

The name of its collection stands before every id.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import typer

from mixlm_rerank.systems.collections import open_collection, open_documents

SHARES = {"msmarco-pool": 1000, "beir-nfcorpus": 400, "beir-scifact": 400}  # BEIR folders in DATA, and queries of each


def join(data: Path, folder: Path, times: int = 1) -> None:
    """TIMES as many queries, or all that a collection has."""
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as corpus, open(folder / "queries.tsv", "w") as queries:
        for name, share in SHARES.items():
            for document in open_documents(str(data / name)):
                row = {"_id": f"{name}-{document.docid}", "title": document.title, "text": document.text}
                corpus.write(json.dumps(row) + "\n")
            asked = open_collection(data / name, "train").queries
            for qid in chance.sample(sorted(asked), min(times * share, len(asked))):
                queries.write(f"{name}-{qid}\t{' '.join(asked[qid].split())}\n")


if __name__ == "__main__":
    typer.run(join)
