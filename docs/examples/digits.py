"""Text queries against images: scikit-learn's 8 x 8 pictures of handwritten digits, as vectors of your own.

    python docs/examples/digits.py FOLDER

An image is one vector, its 64 pixels. The ranker is all-MiniLM-L6-v2, which reads the query; the linear layer between
the two is new. The teacher reads captions, made of the labels; the model never sees these. What is measured: images
that it was not trained on, for queries in words that it was not trained on.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from mixlm_rerank import Candidate, Document, MixLM, Reranker, ScoredDoc, TokenIndex
from mixlm_rerank.data.measures import evaluate
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import FirstStage
from mixlm_rerank.systems.loading import minilm_folder
from mixlm_rerank.systems.protocol import by_score
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.training import JointOptions, LossWeights
from mixlm_rerank.training.distill import DistillOptions, distill

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ASKED = {name: {digit} for digit, name in enumerate(NAMES)} | {
    "even number": {0, 2, 4, 6, 8},
    "odd number": {1, 3, 5, 7, 9},
}
BEGINNINGS = ["", "find ", "show me ", "an image of ", "search for "]
LEARNED = [begin + rest for begin in BEGINNINGS for rest in ("{}", "a {}", "a handwritten {}", "every {}")]
MEASURED = "please give me each {} that somebody wrote"


class Labels:
    """A teacher that reads captions: does the query ask for the digit named there? Any cross-encoder will do."""

    name, description, kind, tokens, pointwise, seed_group = "labels", "labels", "other", None, True, None

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
        wanted = [next(digits for name, digits in ASKED.items() if name in query) for query in queries]
        return [
            np.array([5.0 if NAMES.index(text.split()[-1]) in digits else -5.0 for text in own])
            for digits, own in zip(wanted, texts, strict=True)
        ]

    def prepare(self, work: Workplace) -> None:
        """Nothing to prepare."""

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return by_score(candidates, self.score_batch([query], [[hit.text or "" for hit in candidates]])[0])


class AnyImages(FirstStage):
    """A first stage that knows nothing: images at random."""

    name = "images at random"

    def __init__(self, docids: Sequence[str]) -> None:
        self.docids = docids

    def find(self, collection: Collection, hits: int) -> dict[str, list[Candidate]]:
        drawn = {qid: random.Random(qid).sample(self.docids, min(hits, len(self.docids))) for qid in collection.queries}
        return {qid: [Candidate(docid, 0.0) for docid in docids] for qid, docids in drawn.items()}


def main(folder: str, learned: int = 1297, wordings: int = 20, rounds: int = 5) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)  # for the new layer
    place, digits = Path(folder), load_digits()
    vectors = digits.data / np.linalg.norm(digits.data, axis=1, keepdims=True)
    docids = [f"image-{number}" for number in range(len(vectors))]
    model = MixLM.from_backbones(None, str(minilm_folder()), vectors=64, tokens=1)
    there = place / "index"
    index = TokenIndex(there) if there.exists() else TokenIndex.from_vectors(docids, vectors, model, there)

    unseen = dict(zip(docids[learned:], digits.target[learned:].tolist(), strict=True))
    qrels = {name: {docid: int(digit in wanted) for docid, digit in unseen.items()} for name, wanted in ASKED.items()}

    def measured(which: MixLM, name: str) -> dict[str, float]:
        hits = {name: list(unseen) for name in ASKED}
        ranking = Reranker(which, index).rerank_batch({name: MEASURED.format(name) for name in ASKED}, hits)
        found = evaluate(qrels, ranking, ["nDCG@10", "P@10"])
        print(f"{name}: {len(unseen)} images, " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))
        return found

    before = measured(model, "before")
    captions = [f"a handwritten {NAMES[digit]}" for digit in digits.target[:learned]]
    queries = [wording.format(name) for name in ASKED for wording in LEARNED[:wordings]]
    teacher = Labels()
    distill(
        [Document(*pair) for pair in zip(docids[:learned], captions, strict=True)],
        teacher,
        teacher,
        model,
        place / "run",
        queries={f"q{number}": query for number, query in enumerate(queries)},
        first_stage=AnyImages(docids[:learned]),
        vectors=index,
        options=DistillOptions(candidates=32, hard=0, rounds=rounds, group=4),
        joint=JointOptions([LossWeights(listwise=1)], budgets=[1], learning_rates=(0, 1e-4, 1e-3)),
    )
    after = measured(MixLM.from_pretrained(place / "run" / "model"), "after")
    found = {"before": before, "after": after}
    (place / "digits.json").write_text(json.dumps(found, indent=1))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
