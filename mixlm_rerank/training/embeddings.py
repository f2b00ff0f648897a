"""Before stage III: a bi-encoder learns the embeddings of better ones; it then becomes the item encoder.

A ranking gives a few training targets per query. An embedding gives hundreds per text, and needs no candidates or
labels (LEAF, 2509.12539). The weighted sum of several cosines is the dot product of their embeddings, each scaled by
the root of its weight and put side by side. The student learns the principal components of these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from mixlm_rerank.errors import InputError
from mixlm_rerank.model.running import bf16_pays, weights_to
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.loading import Loading, fingerprint_of, load_sentence_transformer, short_name
from mixlm_rerank.systems.ranked import slug
from mixlm_rerank.training.folder import digest_of, kept_array, locked
from mixlm_rerank.training.stage_trainer import STRICT, InOrder, StageTrainer, training_arguments, without_dropout

__all__ = ["EmbeddingsPart", "Texts", "joint_embeddings", "teacher_embeddings", "texts_of", "train_embeddings"]

AT_ONCE = 512  # texts; a kill loses at most these
OF_LIKE_LENGTH = 64  # batches that are drawn together and divided by length
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class EmbeddingsPart:
    """The part ``embeddings`` of a recipe: the bi-encoder that it makes is ``{run}/embeddings/model``."""

    start: str  # a bi-encoder
    teachers: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]  # bi-encoders: weight of each
    documents: Positive = 50_000  # at most this many of all collections, drawn at random; every query is learned
    epochs: Positive = 3
    batch: Positive = 32  # texts
    learning_rate: float = Field(default=4e-4, gt=0)
    max_length: int = Field(default=256, ge=2)  # tokens that all read of a text
    freeze_embeddings: bool = True  # do not train the word embeddings


class Texts(NamedTuple):
    """What is embedded: bi-encoders may read queries and documents in different ways."""

    queries: list[str]
    documents: list[str]


def texts_of(collections: Sequence[Collection], documents: int) -> Texts:
    """All different queries of the collections, and at most so many of their documents, drawn at random.

    The draw does not depend on a run's seed: runs share what the teachers have read.
    """
    queries = dict.fromkeys(query for one in collections for query in one.queries.values() if query.strip())
    count = sum(1 for _ in _different(collections))
    rows = random.Random(0).sample(range(count), min(documents, count))
    places = {row: place for place, row in enumerate(rows)}
    drawn = {places[row]: text for row, text in enumerate(_different(collections)) if row in places}
    return Texts(list(queries), [drawn[place] for place in sorted(drawn)])


def _different(collections: Sequence[Collection]) -> Iterator[str]:
    """Stream the documents' different texts; only their hashes are kept in memory."""
    seen: set[int] = set()
    for one in collections:
        for document in one.documents("embeddings"):
            text = document.content
            if text.strip() and hash(text) not in seen:
                seen.add(hash(text))
                yield text


def teacher_embeddings(
    source: str, texts: Texts, folder: Path, max_length: int, loading: Loading = Loading(), *, progress: bool = True
) -> NDArray[np.float32]:
    """Embeddings of length 1 of queries, then documents, float32 [texts, d]. In bfloat16 where that is faster.

    They are kept in ``folder`` as they are computed; existing ones are not computed again.
    """
    model = _loaded(source, max_length, loading)
    name = short_name(source)
    dtype = torch.bfloat16 if bf16_pays(model.device) else torch.float32
    made_of = {"bi-encoder": f"{fingerprint_of(model)} {dtype}", "set of texts": digest_of(*texts)}
    weights_to(model, dtype)
    every = [*texts.queries, *texts.documents]
    shape = (len(every), model.encode(every[:1]).shape[1])
    with locked(folder):
        found = kept_array(folder / f"{slug(name)}-{digest_of(*made_of.values())}.npy", shape, made_of)
        left = np.flatnonzero(np.isnan(found).any(axis=1))  # a killed process may leave part of a row
        with progress_bar(
            len(every), f"embeddings: {name}", "texts", enabled=progress, initial=len(every) - len(left)
        ) as bar:
            for encode, own in (
                (model.encode_query, left[left < len(texts.queries)]),
                (model.encode_document, left[left >= len(texts.queries)]),
            ):
                for start in range(0, len(own), AT_ONCE):
                    rows = own[start : start + AT_ONCE]
                    asked = [every[row] for row in rows]
                    vectors = encode(asked, convert_to_tensor=True, show_progress_bar=False)
                    found[rows] = F.normalize(vectors.float(), dim=-1).cpu().numpy()
                    bar.update(len(rows))
        found.flush()
    return found


def _loaded(source: str, max_length: int, loading: Loading) -> Any:
    """A SentenceTransformer that reads at most so many tokens. Raises InputError for one whose length cannot be set."""
    model = load_sentence_transformer(source, loading)
    try:
        model.max_seq_length = min(max_length, model.max_seq_length or max_length)
    except AttributeError:
        raise InputError(f"{source!r} has no length that can be set: take a Transformer") from None
    return model


def joint_embeddings(
    embeddings: Sequence[NDArray[np.float32]], weights: Sequence[float], own: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What a student with embeddings ``own``, [n, d], is to learn: float32 [n, d], of length 1.

    Their dot products are nearly the weighted sum of the teachers' cosines (``embeddings``, [n, any] each), which are
    centred first, because a model's embeddings may all point one way. They are rotated to be near ``own`` (orthogonal
    Procrustes), which changes no dot product.
    """
    from scipy.linalg import orthogonal_procrustes
    from sklearn.decomposition import PCA

    beside = np.concatenate(
        [np.float32(weight**0.5) * one for one, weight in zip(embeddings, weights, strict=True)], axis=1
    )
    width = own.shape[1]
    beside = np.pad(beside, ((0, 0), (0, max(0, width - beside.shape[1]))))
    main = PCA(min(width, *beside.shape), svd_solver="covariance_eigh").fit_transform(beside)
    main = np.pad(main, ((0, 0), (0, width - main.shape[1])))
    main /= np.linalg.norm(main, axis=1, keepdims=True).clip(min=1e-9)
    turn, _ = orthogonal_procrustes(main, own)
    turned: NDArray[np.float32] = (main @ turn).astype(np.float32)
    return turned


class _Cosine(nn.Module):
    """Mean of ``1 - cos(embedding, target)``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Sequence[Mapping[str, Tensor]], labels: Tensor) -> Tensor:
        found = self.model(features[0])["sentence_embedding"].float()
        return (1 - F.cosine_similarity(found, labels, dim=-1)).mean()


def train_embeddings(
    part: EmbeddingsPart,
    texts: Texts,
    targets: NDArray[np.float32],
    folder: Path,
    *,
    seed: int = 0,
    loading: Loading = Loading(),
    progress: bool = True,
) -> Path:
    """Train the start on ``targets``, float32 [texts, d]; returns the folder of the model. Resumable."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    model = _loaded(part.start, part.max_length, loading)
    without_dropout(model)
    if part.freeze_embeddings:
        model[0].auto_model.get_input_embeddings().weight.requires_grad_(False)
    prompts = [model.prompts.get(name) or "" for name in ("query", "document")]
    read = [prompt + text for prompt, own in zip(prompts, texts, strict=True) for text in own]
    order = [row for epoch in range(part.epochs) for row in _order(read, part.batch, seed + epoch)]

    class Trainer(InOrder, StageTrainer, SentenceTransformerTrainer):
        """Batches of texts of similar length."""

    trainer = Trainer(
        model=model,
        args=training_arguments(
            SentenceTransformerTrainingArguments,
            {"bf16": True, "warmup_steps": 0.05, "weight_decay": 0.01},
            output_dir=str(folder),
            per_device_train_batch_size=part.batch,
            learning_rate=part.learning_rate,
            num_train_epochs=1,  # the order repeats
            logging_steps=50,
            disable_tqdm=not progress,
            seed=seed,
        ),
        train_dataset=Dataset.from_dict({"text": read, "label": targets}).select(order),
        loss=_Cosine(model),
    )
    return trainer.train_on(lambda draft: model.save_pretrained(str(draft)))


def _order(texts: Sequence[str], batch: int, seed: int) -> list[int]:
    """Every text once, in random batches of texts of similar length."""
    draw = random.Random(seed)
    rows = draw.sample(range(len(texts)), len(texts))
    batches = []
    for start in range(0, len(rows), OF_LIKE_LENGTH * batch):
        near = sorted(rows[start : start + OF_LIKE_LENGTH * batch], key=lambda row: len(texts[row]))
        batches += [near[first : first + batch] for first in range(0, len(near), batch)]
    short = batches.pop() if len(batches[-1]) < batch else []
    draw.shuffle(batches)
    return [row for own in (*batches, short) for row in own]
