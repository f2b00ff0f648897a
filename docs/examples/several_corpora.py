"""One model for several corpora: their documents as one corpus, and some training queries of each.

    python docs/examples/several_corpora.py DATA FOLDER
    mixlm-rerank distill FOLDER/corpus.jsonl.gz --queries FOLDER/queries.tsv --teacher CROSS_ENCODER --output fitted

The name of its collection stands before every id.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import typer

SHARES = {"msmarco-pool": 1000, "beir-nfcorpus": 400, "beir-scifact": 400}  # training queries of each


def join(data: Path, folder: Path, times: int = 1) -> None:
    """TIMES as many queries, or all."""
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as corpus, open(folder / "queries.tsv", "w") as queries:
        for name, share in SHARES.items():
            with gzip.open(data / name / "corpus.jsonl.gz", "rt") as documents:
                for line in documents:
                    document = json.loads(line)
                    corpus.write(json.dumps({**document, "_id": f"{name}-{document['_id']}"}) + "\n")
            judged = (data / name / "qrels" / "train.tsv").read_text().splitlines()[1:]
            asked = map(json.loads, (data / name / "queries.jsonl").read_text().splitlines())
            texts = {query["_id"]: " ".join(query["text"].split()) for query in asked}
            known = sorted({line.split("\t")[0] for line in judged} & texts.keys())
            for qid in chance.sample(known, min(times * share, len(known))):
                queries.write(f"{name}-{qid}\t{texts[qid]}\n")


if __name__ == "__main__":
    typer.run(join)
