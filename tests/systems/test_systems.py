"""Every system ranks all candidates, and as the thing itself that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as Judge
from transformers import AutoModelForSequenceClassification, AutoTokenizer, T5Config, T5ForConditionalGeneration

from mixlm_rerank import Candidate, Document, MixLM, Reranker, ScoredDoc, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.cross_encoder import DOCUMENT_POSITION
from mixlm_rerank.model.running import inference
from mixlm_rerank.ranking import Weight
from mixlm_rerank.scoring import BiEncoderScorer, FullTextScorer
from mixlm_rerank.systems.combined import Interpolated, RankedElsewhere, Shallow, mixed
from mixlm_rerank.systems.loading import Loading
from mixlm_rerank.systems.mixlm import Cascade, Cosine, FullTextMode, TokenReranker
from mixlm_rerank.systems.protocol import System
from mixlm_rerank.systems.sentence_transformers import BiEncoder, CrossEncoder
from mixlm_rerank.systems.token_states import AllStates, MultiVector
from mixlm_rerank.systems.workplace import Workplace

QUERY = "who fears the dog"
Scores = dict[str, float]
Made = tuple[System, Callable[[], Scores]]


@pytest.fixture(scope="module")
def multi_vector(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as if it had been trained for late interaction."""
    from sentence_transformers import MultiVectorEncoder

    folder = tmp_path_factory.mktemp("models") / "colbert"
    MultiVectorEncoder(str(checkpoint("bert"))).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def candidates(documents: list[Document]) -> list[Candidate]:
    return [Candidate(document.docid, 9.0 - 2**row, document.content) for row, document in enumerate(documents)]


FULL_TEXT = ["full text", "full text, late residual", "full text, no residual"]


ALL_STATES = ["PreTTR", "MICE", "ColBERT", "ColBERT, pooled"]


@pytest.fixture(params=["k=4", "k=1", "verify", "verify by CE", "cosine", *FULL_TEXT, "CE", "CE@9", "BE", *ALL_STATES])
def made(
    request: pytest.FixtureRequest,
    tiny: Callable[..., MixLM],
    checkpoint: Callable[..., Path],
    cross_encoder: Callable[..., Path],
    documents: list[Document],
    candidates: list[Candidate],
    multi_vector: Path,
    tmp_path: Path,
) -> Made:
    """A system; and what gives docid -> score by the library that it stands for, without the harness."""
    model, texts = tiny("bert"), [document.content for document in documents]

    def reranked(model: MixLM, **options: object) -> Scores:
        index = TokenIndex.build(documents, model, tmp_path / "by hand", progress=False)
        found = Reranker(model, index, missing="error", **options).rerank(QUERY, candidates)  # type: ignore[arg-type]
        return {doc.docid: doc.score for doc in found}

    def named(scores: Sequence[float]) -> Scores:
        return {document.docid: float(score) for document, score in zip(documents, scores, strict=True)}

    def in_full(model: MixLM) -> Scores:
        tokens = None
        if model.config.residual != "none":  # the harness takes what the residual reads out of the index, int8
            index = TokenIndex.build(documents, model, tmp_path / "by hand", progress=False)
            read = 4 if model.config.residual == "late" else 1
            tokens = torch.from_numpy(index.fetch([document.docid for document in documents], read).tokens)
        return named(FullTextScorer(model).score(QUERY, texts, tokens).tolist())

    def judged(max_length: int | None) -> Scores:
        judge = Judge(str(cross_encoder()), max_length=max_length)
        pairs = [(QUERY, text) for text in texts]
        return named(judge.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False))

    def similar() -> Scores:
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(str(checkpoint("bert")))
        return named(encoder.similarity(encoder.encode_query([QUERY]), encoder.encode_document(texts))[0].tolist())

    def read_apart(fixed: bool) -> Scores:
        """The checkpoint's own layers; below the second, query and document do not see each other."""
        tokenizer = AutoTokenizer.from_pretrained(cross_encoder())
        judge = AutoModelForSequenceClassification.from_pretrained(cross_encoder()).eval()
        return named([float(_read_apart(judge, tokenizer, text, fixed)) for text in texts])

    def late_interaction(pooling: int | None) -> Scores:
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

        encoder = MultiVectorEncoder(str(multi_vector))
        asked = (encoder.encode_query, [QUERY]), (encoder.encode_document, texts)
        (own,), found = (encode(given, convert_to_numpy=False) for encode, given in asked)
        if pooling is not None:
            found = [HierarchicalTokenPooling(pooling).pool_one(vectors) for vectors in found]
        return named([float((own @ vectors.T).amax(dim=1).sum()) for vectors in found])

    plain, late = tiny("bert", residual="none"), tiny("bert", residual="late")
    cut = partial(AllStates.cut, str(cross_encoder()), 1, Loading())
    systems: dict[str, Callable[[], Made]] = {
        "k=4": lambda: (TokenReranker(model), lambda: reranked(model)),
        "k=1": lambda: (TokenReranker(model, 1), lambda: reranked(model, tokens=1)),
        "verify": lambda: (Cascade(model, 3, 2), lambda: reranked(model, tokens=2, verify_top=3)),
        "verify by CE": lambda: (
            Cascade(model, 3, 2, cross_encoder=str(cross_encoder()), max_length=9),
            lambda: reranked(model, tokens=2, verify_top=3, verify_with=Judge(str(cross_encoder()), max_length=9)),
        ),
        "cosine": lambda: (Cosine(model), lambda: reranked(model, tokens=1, scorer=BiEncoderScorer(model))),
        "full text": lambda: (FullTextMode(model), lambda: in_full(model)),
        "full text, late residual": lambda: (FullTextMode(late), lambda: in_full(late)),
        "full text, no residual": lambda: (FullTextMode(plain), lambda: in_full(plain)),
        "CE": lambda: (CrossEncoder(str(cross_encoder())), lambda: judged(None)),
        "CE@9": lambda: (CrossEncoder(str(cross_encoder()), 9), lambda: judged(9)),
        "BE": lambda: (BiEncoder(str(checkpoint("bert"))), similar),
        "PreTTR": lambda: (cut(fixed_documents=False), lambda: read_apart(fixed=False)),
        "MICE": lambda: (cut(fixed_documents=True), lambda: read_apart(fixed=True)),
        "ColBERT": lambda: (MultiVector(str(multi_vector)), lambda: late_interaction(None)),
        "ColBERT, pooled": lambda: (MultiVector(str(multi_vector), 3), lambda: late_interaction(3)),
    }
    return systems[request.param]()


@torch.inference_mode()
def _read_apart(judge: Any, tokenizer: Any, text: str, fixed: bool) -> torch.Tensor:
    pair = tokenizer(QUERY, text, return_tensors="pt")
    length = len(tokenizer(QUERY)["input_ids"])
    places = torch.arange(pair["input_ids"].shape[1])
    first = places < length
    pair["position_ids"] = places.where(first, places - length + DOCUMENT_POSITION)[None]
    states = judge.bert.embeddings(**{name: ids for name, ids in pair.items() if name != "attention_mask"})
    lower, *upper = judge.bert.encoder.layer
    apart = (first[:, None] == first)[None, None]
    states = read = lower(states, attention_mask=apart)
    for layer in upper:
        states = layer(states, attention_mask=torch.ones_like(apart))
        states = torch.where(first[:, None], states, read) if fixed else states
    return judge.classifier(judge.bert.pooler(states))  # type: ignore[no-any-return]


def test_a_system_ranks_as_the_thing_itself(work: Workplace, candidates: list[Candidate], made: Made) -> None:
    system, scores = made
    system.prepare(work)
    docs = system.rank(QUERY, candidates)
    expected = scores()
    exactness = 3e-3 if isinstance(system, AllStates | MultiVector) else 1e-4  # they keep float16
    assert len(set(expected.values())) > 1
    assert {doc.docid: doc.score for doc in docs} == pytest.approx(expected, abs=exactness)
    assert [doc.docid for doc in docs] == sorted(expected, key=lambda docid: -expected[docid])
    assert [doc.rank for doc in docs] == list(range(1, 7))
    assert {doc.docid: doc.first_stage_score for doc in docs} == {hit.docid: hit.score for hit in candidates}


def test_one_candidate_alone_and_one_without_text_are_ranked_too(
    work: Workplace, candidates: list[Candidate], made: Made, documents: list[Document]
) -> None:
    """A document without text is in no index: systems that read one put it last."""
    system, _ = made
    corpus = [*documents, Document("d0", "")]
    work = Workplace(replace(work.collection, corpus=corpus), work.folder, work.indexes, progress=False)
    system.prepare(work)
    assert [doc.docid for doc in system.rank(QUERY, candidates[1:2])] == ["d2"]
    docs = system.rank(QUERY, [Candidate("d0", 99.0, ""), *candidates])
    assert sorted(doc.docid for doc in docs) == [f"d{number}" for number in range(7)]
    assert docs[-1].docid == "d0" or system.kind == "full text"
    assert [doc.docid for doc in system.rank(QUERY, [Candidate("d0", 1.0, "")])] == ["d0"]


def test_it_says_what_it_keeps_on_disk(
    work: Workplace,
    made: Made,
    documents: list[Document],
    cross_encoder: Callable[..., Path],
    request: pytest.FixtureRequest,
) -> None:
    system, _ = made
    footprint = system.prepare(work)
    name = request.node.callspec.params["made"]
    if name in ("CE", "CE@9", "full text, no residual"):
        assert footprint is None
        return
    assert footprint is not None
    if name == "BE":
        assert (footprint.bytes_per_document, footprint.build_seconds) == (4 * 64, None)
        return
    if name in ALL_STATES:
        tokenizer = AutoTokenizer.from_pretrained(cross_encoder())
        lengths = [len(tokenizer(document.content)["input_ids"]) for document in documents]
        whole = 2 * (128 if "ColBERT" in name else 64) * fmean(lengths)
        assert footprint.bytes_per_document == pytest.approx(whole * (0.4 if "pooled" in name else 1), rel=0.15)
        return
    (folder,) = work.folder.glob("tokens-*/")
    on_disk = sum(path.stat().st_blocks * 512 for path in folder.iterdir()) / 6
    read = {"cosine": 1, "full text": 1, "k=1": 1, "verify": 2, "verify by CE": 2}.get(name, 4) / 4  # tokens of four
    assert footprint.bytes_per_document == pytest.approx(on_disk * read)
    assert footprint.build_seconds is not None and 0 < footprint.build_seconds < 60


def test_all_systems_of_a_model_share_its_index_and_another_corpus_gets_another(
    work: Workplace, tiny: Callable[..., MixLM], documents: list[Document]
) -> None:
    model = tiny("bert")
    for system in (Cosine(model), TokenReranker(model), Cascade(model, 2)):
        system.prepare(work)
    (folder,) = work.folder.glob("tokens-*/")
    stamp = (folder / "data.mdb").stat().st_mtime_ns
    again = Workplace(work.collection, work.folder, work.indexes, progress=False)
    TokenReranker(model, 2).prepare(again)
    assert (folder / "data.mdb").stat().st_mtime_ns == stamp
    changed = [replace(documents[0], text="No dog."), *documents[1:]]
    TokenReranker(model).prepare(
        Workplace(replace(work.collection, corpus=changed), work.folder, work.indexes, progress=False)
    )
    assert len(list(work.folder.glob("tokens-*/"))) == 2


def test_interpolation_by_hand() -> None:
    """Scaled: a 0, b 1, c .5 of the system; a 1, b .25, c 0 of the first stage. Weight .4: .4, .7, .3."""
    candidates = [Candidate("a", 9.0), Candidate("b", 3.0), Candidate("c", 1.0)]
    docs = [ScoredDoc("b", 10.0, 1, 3.0), ScoredDoc("c", 0.0, 2, 1.0), ScoredDoc("a", -10.0, 3, 9.0)]
    found = mixed(candidates, docs, 0.4)
    assert [(doc.docid, doc.rank, doc.first_stage_score) for doc in found] == [
        ("b", 1, 3.0),
        ("a", 2, 9.0),
        ("c", 3, 1),
    ]
    assert [doc.score for doc in found] == pytest.approx([0.7, 0.4, 0.3])


@pytest.mark.parametrize("weight", [0.0, 0.35, 1.0, "rrf"])
def test_an_interpolated_system_is_the_reranker_with_that_weight(
    work: Workplace, tiny: Callable[..., MixLM], candidates: list[Candidate], weight: Weight
) -> None:
    model = tiny("bert")
    system = Interpolated(TokenReranker(model, 2, seed="a"), weight)
    assert (system.name, system.seed_group, system.tokens, system.kind) == (
        f"MixLM k=2 [a] + {weight if weight == 'rrf' else f'{weight:g}'} first stage",
        f"MixLM k=2 + {weight if weight == 'rrf' else f'{weight:g}'} first stage",
        2,
        "combination",
    )
    system.prepare(work)
    docs = Reranker(model, work.index(model), tokens=2, first_stage_weight=weight).rerank(QUERY, candidates)
    assert [doc.docid for doc in system.rank(QUERY, candidates)] == [doc.docid for doc in docs]
    if weight == 1:
        assert [doc.docid for doc in docs] == [hit.docid for hit in candidates]


@pytest.mark.parametrize("fixed", [False, True])
def test_all_states_by_the_fast_path_are_those_of_the_plain_one(
    cross_encoder: Callable[..., Path], fixed: bool
) -> None:
    """Documents of any length in one batch: padding changes no score."""
    system = AllStates.cut(str(cross_encoder(initializer_range=0.3)), 1, Loading(), fixed_documents=fixed)
    ranker, draw = system.model.ranker, torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (30,), generator=draw).tolist()
    documents = [torch.randn(length, ranker.hidden_size, generator=draw) for length in lengths]
    assert ranker.packs_pairs
    with inference(system.model):
        prefix = ranker.prefixes([QUERY])[0]
        plain = system.model.readout(torch.cat([ranker([prefix], [document]) for document in documents]))
    fast = system._score(QUERY, documents)
    assert plain.std() > 0.01 and torch.allclose(fast, plain, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 99])
def test_a_shallow_system_ranks_the_best_and_leaves_the_others_below(
    work: Workplace, tiny: Callable[..., MixLM], candidates: list[Candidate], depth: int
) -> None:
    inner = FullTextMode(tiny("bert"), seed="a")
    system = Shallow(inner, depth)
    assert system.seed_group == f"full-text mode, first stage's best {depth}"
    system.prepare(work)
    docs = [doc.docid for doc in system.rank(QUERY, candidates)]
    assert docs[:depth] == [doc.docid for doc in inner.rank(QUERY, candidates[:depth])]
    assert docs[depth:] == [hit.docid for hit in candidates[depth:]]


def test_a_run_of_other_software_is_a_system(work: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "theirs.trec"
    qid, query = next(iter(work.collection.queries.items()))
    run.write_text(f"{qid} Q0 c 1 3.5 x\n{qid} Q0 elsewhere 2 3 x\n{qid} Q0 a 3 2 x\n")
    system = RankedElsewhere(run)
    system.prepare(work)
    docs = system.rank(query, [Candidate("a", 9.0), Candidate("b", 3.0), Candidate("c", 1.0)])
    assert [(doc.docid, doc.missing) for doc in docs] == [("c", False), ("a", False), ("b", True)]
    assert [doc.score for doc in docs[:2]] == [3.5, 2.0]
    before = system.description
    run.write_text(f"{qid} Q0 a 1 3.5 x\n")
    assert RankedElsewhere(run).description != before
    for line, because in (("nobody Q0 a", "does not have it"), (f"{qid} Q0 z", r"has other documents of it \(z\)")):
        run.write_text(f"{line} 1 3.5 x\n")
        other = RankedElsewhere(run)
        other.prepare(work)
        with pytest.raises(InputError, match=f"ranks no candidate of the query .*: it {because}"):
            other.rank(query, [Candidate("a", 9.0)])
    with pytest.raises(InputError, match="none.trec"):
        RankedElsewhere(tmp_path / "none.trec")


def test_what_it_depends_on_is_in_the_description(
    tiny: Callable[..., MixLM], cross_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """A ranking is kept under it, so two systems that rank otherwise may never share one."""
    model = tiny("bert")
    model.save_pretrained(tmp_path / "a")
    model.save_pretrained(tmp_path / "b")
    same, shorter, trained, coarser = (MixLM.from_pretrained(tmp_path / "a", device="cpu") for _ in range(4))
    shorter.config = replace(shorter.config, max_query_tokens=32)
    trained.readout.score.weight.data[0, 0] += 1
    coarser.ranker.bfloat16()
    models = [same, shorter, trained, coarser, tiny("bert", residual="none")]
    systems: list[System] = [make(one) for one in models for make in (TokenReranker, Cosine, FullTextMode)]
    systems += [TokenReranker(same, 2), Cascade(same, 2), Cascade(same, 3), Interpolated(Cosine(same), 0.2)]
    systems += [Interpolated(Cosine(same), 0.3), *(CrossEncoder(str(cross_encoder()), cut) for cut in (None, 9))]
    assert len({system.description for system in systems}) == len(systems)
    again = MixLM.from_pretrained(tmp_path / "a", device="cpu")
    assert TokenReranker(again).description == TokenReranker(same).description


@pytest.mark.parametrize("cut", [0, -1])
def test_a_cross_encoder_reads_at_least_one_token(cross_encoder: Callable[..., Path], cut: int) -> None:
    with pytest.raises(InputError, match=f"max_length must be at least 1, not {cut}"):
        CrossEncoder(str(cross_encoder()), cut)


def test_a_classifier_of_several_labels_is_no_reranker(cross_encoder: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="judge-3' gives a pair 3 scores: a reranker must give one"):
        CrossEncoder(str(cross_encoder(3)))


def test_a_model_that_loads_and_cannot_score_is_no_reranker(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """T5: Transformers puts a random head on it, which then finds no end of sentence in any pair."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=400, decoder_start_token_id=0, **sizes)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint("qwen3")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is not a cross-encoder that can be read here: it is a t5 model"):
        CrossEncoder(str(tmp_path))


@pytest.mark.parametrize("system", [CrossEncoder, BiEncoder])
def test_a_folder_without_a_model_is_named(tmp_path: Path, system: Callable[[str], System]) -> None:
    with pytest.raises(InputError, match=str(tmp_path)) as raised:
        system(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_impossible_weights_budgets_and_depths_are_named(tiny: Callable[..., MixLM]) -> None:
    model = tiny("bert")
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"between 0 and 1, not {weight}"):
            Interpolated(Cosine(model), weight)
    with pytest.raises(InputError, match="between 1 and 4 .*, not 5"):
        TokenReranker(model, 5)
    with pytest.raises(InputError, match="verify_top must be at least 1, not 0"):
        Cascade(model, 0)


def test_scores_are_not_squashed(work: Workplace, cross_encoder: Callable[..., Path]) -> None:
    """A sigmoid in float32 is 1 for every score above 17: the best documents would tie."""
    system = CrossEncoder(str(cross_encoder()))
    head = system._model[0].auto_model.classifier
    with torch.no_grad():
        head.bias += 40
    system.prepare(work)
    hits = [Candidate(str(row), 0.0, text) for row, text in enumerate(["a dog", "the moon", "salt and flour", "yes"])]
    scores = np.array([doc.score for doc in system.rank(QUERY, hits)])
    assert len(set(scores)) == 4 and scores.min() > 17
