"""Distillation without labels: real BM25, a real cross-encoder, queries made of the corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from mixlm_rerank import Candidate, MixLM, Reranker, ScoredDoc, TokenIndex
from mixlm_rerank.cli import app
from mixlm_rerank.data import open_corpus, read_topics
from mixlm_rerank.data.measures import Fidelity
from mixlm_rerank.errors import InputError
from mixlm_rerank.scoring import SharedPrefixScorer
from mixlm_rerank.systems.collections import Collection
from mixlm_rerank.systems.first_stages import RunFile
from mixlm_rerank.systems.loading import Loading, short_name
from mixlm_rerank.systems.protocol import by_score
from mixlm_rerank.systems.ranked import Candidates
from mixlm_rerank.systems.sentence_transformers import CrossEncoder
from mixlm_rerank.systems.workplace import Workplace
from mixlm_rerank.training.development import DevelopmentSet, as_taught, verdict
from mixlm_rerank.training.distill import DistillOptions, DistillRecipe, _divided, distill
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.mix import Batch
from mixlm_rerank.training.pools import Pool, corpus_pools, read_pools, synthetic_queries
from mixlm_rerank.training.recipe import load_recipe
from mixlm_rerank.training.stage3 import JointOptions


class CommonWords:
    """A teacher, and the system to compare with: how many words query and document share."""

    name, description, kind, tokens, pointwise, seed_group = "words", "words", "other", None, True, None

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([3.0 * len(set(query.strip(".").split()) & set(text.strip(".").split())) for text in texts])

    def score_batch(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[NDArray[np.float64]]:
        return [self.score(query, own) for query, own in zip(queries, texts, strict=True)]

    def prepare(self, work: Workplace) -> None:
        """Nothing to prepare."""

    def rank(self, query: str, candidates: Sequence[Candidate]) -> list[ScoredDoc]:
        return by_score(candidates, self.score(query, [hit.text or "" for hit in candidates]))


class OtherReadout(CommonWords):
    """A teacher that the model can become: itself, with another readout."""

    name = description = "other readout"

    def __init__(self, model: MixLM) -> None:
        torch.nn.init.normal_(model.readout.score.weight, generator=torch.Generator().manual_seed(0))
        self._model = model

    def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float64]:
        tokens = torch.from_numpy(self._model.encode(texts))
        return SharedPrefixScorer(self._model).score(query, tokens).double().numpy()


def fitted_to_words(corpus: Path, model: MixLM, folder: Path, **options: Any) -> dict[str, Fidelity]:
    return fitted(CommonWords(), corpus, model, folder, **options)


def fitted(teacher: CommonWords, corpus: Path, model: MixLM, folder: Path, **options: Any) -> dict[str, Fidelity]:
    documents = open_corpus(str(corpus))
    return distill(documents, teacher, teacher, model, folder, **{"progress": False, **options})  # type: ignore[arg-type]


def test_what_is_learned_holds_for_queries_held_out(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what it takes is said before it begins.

    The readout alone learns, of a teacher that differs in it alone: a convex problem with a solution, which is found
    however the processor rounds.
    """
    joint = JointOptions(budgets=(2,), learning_rates=(0, 0, 0.1), save_every=1000)
    # no hard candidates: a start of random weights knows none
    options = DistillOptions(queries=60, held_out=0.1, rounds=8, ranker_rounds=8, depth=20, hard=0, group=8)
    teacher, start = (fresh("bert", tokens=2, residual="none") for _ in range(2))
    found = fitted(OtherReadout(teacher), corpus, start, tmp_path, options=options, joint=joint, progress=True)
    plan = re.search(
        r"54 queries to learn from; the teacher reads ([\d,]+) pairs, and 120 of queries held out \(about .*\); "
        r"then (.*) steps joint \(about .*\), (.*) steps ranker",
        capsys.readouterr().err,
    )
    scores = np.load(tmp_path / "teacher.npy")
    assert plan is not None and plan.groups()[1:] == ("52", "52")
    assert int(plan[1].replace(",", "")) == (~np.isnan(scores)).sum()
    assert list(found) == ["start k=2", "k=2"]
    assert found["k=2"].kendall_tau > found["start k=2"].kendall_tau + 0.3
    read = {line["query"] for line in map(json.loads, (tmp_path / "pools.jsonl").read_text().splitlines())}
    assert len(read) == 54
    assert set(read_topics(tmp_path / "queries.tsv").values()) > read  # and those held out
    # weights are there once, and no checkpoint, which is several times as large
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.safetensors")} == {"model"}
    assert not list(tmp_path.rglob("optimizer.pt"))
    assert len(list((tmp_path / "held-out").glob("*.jsonl"))) == 3  # the teacher, and the model before and after


def test_the_checkpoint_is_kept_that_agrees_best_with_the_teacher_on_queries_left_out(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test decides what is measured: real values of so few steps depend on how the processor rounds."""
    values = iter([0.1, 0.2, 0.9, 0.3])
    asked: list[tuple[list[torch.Tensor], Sequence[DevelopmentSet]]] = []

    def measured(model: MixLM, sets: Sequence[DevelopmentSet], budgets: Sequence[int]) -> dict[str, float]:
        asked.append(([weight.detach().clone() for weight in model.parameters()], sets))
        return {"k=1": 1 - (value := next(values)), "k=2": value}

    monkeypatch.setattr("mixlm_rerank.training.development.development_values", measured)
    fitted_to_words(
        corpus,
        fresh("bert", tokens=2),
        tmp_path,
        options=DistillOptions(queries=60, held_out=0.1, rounds=2, depth=20, group=8),
        joint=JointOptions(budgets=(1, 2), learning_rates=(1e-3, 1e-3, 1e-2), save_every=5),
    )
    log = json.loads((tmp_path / "joint" / "trainer_state.json").read_text())["log_history"]
    rows = {row["step"]: row["eval_k=2"] for row in log if "eval_k=2" in row}
    assert rows == {0: 0.1, 5: 0.2, 10: 0.9, 13: 0.3}
    kept = list(MixLM.from_pretrained(tmp_path / "model", dtype="float32").parameters())
    same = [all(torch.equal(a, b) for a, b in zip(kept, weights, strict=True)) for weights, _ in asked]
    assert same == [False, False, True, False]

    pools, scores = read_pools(tmp_path / "pools.jsonl"), np.load(tmp_path / "teacher.npy")
    documents = list(open_corpus(str(corpus)))
    texts = {document.docid: document.content for document in documents}
    (found,) = asked[0][1]
    titles = {document.docid: document.title for document in documents if document.docid in found.candidates.titles}
    assert all(sets == [as_taught(pools[:2], texts, scores, titles)] for _, sets in asked)


def test_titles_of_the_corpus_are_read(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every batch, and where the best checkpoint is chosen."""
    documents = [replace(document, title=f"number {n}") for n, document in enumerate(open_corpus(str(corpus)))]
    titles = {document.content: document.title for document in documents}
    batches: list[Batch] = []
    watched: list[DevelopmentSet] = []
    forward = JointObjective.forward

    def read(self: JointObjective, batch: Batch, *given: Any, **named: Any) -> Any:
        batches.append(batch)
        return forward(self, batch, *given, **named)

    def measured(model: MixLM, sets: Sequence[DevelopmentSet], budgets: Sequence[int]) -> dict[str, float]:
        watched.extend(sets)
        return {"k=2": 0.0}

    monkeypatch.setattr(JointObjective, "forward", read)
    monkeypatch.setattr("mixlm_rerank.training.development.development_values", measured)
    queries = {f"q{n}": f"dog cat moon {n}" for n in range(10)}
    lines = [
        f"{qid} Q0 {one.docid} {rank} {-rank} run\n" for qid in queries for rank, one in enumerate(documents[:5], 1)
    ]
    (tmp_path / "run.trec").write_text("".join(lines))
    teacher, model = CommonWords(), fresh("bert", tokens=2, title_tokens=4)
    asked: dict[str, Any] = {"queries": queries, "first_stage": RunFile(tmp_path / "run.trec"), "progress": False}
    asked |= {"options": DistillOptions(candidates=4, hard=0), "joint": JointOptions(budgets=(2,))}
    distill(documents, teacher, teacher, model, tmp_path / "out", **asked)
    assert batches and all(batch.titles == [titles[text] for text in batch.documents] for batch in batches)
    held = [(text, one.candidates.titles[docid]) for one in watched for docid, text in one.candidates.texts.items()]
    assert held and all(titles[text] == title for text, title in held)
    assert MixLM.from_pretrained(tmp_path / "out" / "model").config.title_tokens == 4


@pytest.mark.parametrize("residual", ["cosine", "none"])
def test_hard_candidates_are_those_that_the_first_stage_ranks_first_and_a_model_with_a_residual(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path, residual: str
) -> None:
    model = fresh("bert", tokens=2, residual=residual)
    documents = list(open_corpus(str(corpus)))
    queries = {f"q{n}": f"dog cat moon {n}" for n in range(8)}
    hits = [Candidate(document.docid, 1.0, document.content) for document in documents[:20]]
    collection = Collection("corpus", documents, queries, {qid: {} for qid in queries})
    candidates = Candidates("a run", 20, dict.fromkeys(queries, hits), {hit.docid: hit.text or "" for hit in hits})
    work = Workplace(collection, tmp_path, tmp_path, progress=False)
    pools = corpus_pools(tmp_path / "pools.jsonl", candidates, work, model, size=6, hard=4, seed=0)
    assert [pool.query for pool in pools] == list(queries.values())
    ranked = Reranker(model, TokenIndex.build(documents, model, tmp_path / "tokens", progress=False), tokens=1)
    for pool in pools:
        own = [doc.docid for doc in ranked.rerank(pool.query, hits)]
        in_turn = [docid for pair in zip(hits, own, strict=True) for docid in (pair[0].docid, pair[1])]
        expected = [hit.docid for hit in hits] if residual == "none" else list(dict.fromkeys(in_turn))
        assert pool.docids[:4] == expected[:4]
        assert len(set(pool.docids)) == 6
    assert len({tuple(pool.docids[4:]) for pool in pools}) > 1  # the others are drawn


@pytest.mark.parametrize("teacher", ["cross-encoder", "full-text"])
def test_the_command(
    corpus: Path, fresh: Callable[..., MixLM], cross_encoder: Callable[..., Path], tmp_path: Path, teacher: str
) -> None:
    fresh("bert", tokens=2).save_pretrained(tmp_path / "start")
    source = teacher if teacher == "full-text" else str(cross_encoder())
    command = ["distill", str(corpus), "--teacher", source, "--output", str(tmp_path / "run"), "--model"]
    (tmp_path / "short.yaml").write_text(
        "options: {queries: 40, rounds: 1, ranker_rounds: 1}\njoint: {budgets: [1, 2, 4]}\n"
    )
    config = ["--config", str(tmp_path / "short.yaml"), "--quiet"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "start"), *config])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((tmp_path / "run" / "fidelity.json").read_text())
    assert "k=2" in done.output and f"{found['k=2']['rank_biased_overlap']:.3f}" in done.output
    assert "better than the start at" in done.output and ", on 2 held-out queries: too few to tell" in done.output
    assert f"mixlm-rerank index build {corpus} {tmp_path}/run/index --model {tmp_path}/run/model\n" in done.output
    assert MixLM.from_pretrained(tmp_path / "run" / "model").config.tokens == 2
    for part in ("joint", "ranker"):
        log = json.loads((tmp_path / "run" / part / "trainer_state.json").read_text())["log_history"]
        assert [row["step"] for row in log if "eval_k=2" in row][-1] > 0


def test_without_a_start_it_is_cut_out_of_the_teacher(
    corpus: Path, judge: Callable[..., Path], cross_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Whose upper layers it then has, moved by little training; what nothing can be cut out of is named."""
    (tmp_path / "short.yaml").write_text(
        "start: {mix_layer: 2, tokens: 4}\noptions: {queries: 40}\n"
        "joint: {phases: [{listwise: 1}], budgets: [1, 8], learning_rates: [1.0e-5, 1.0e-5, 1.0e-5]}\n"
    )  # all four tokens are trained though no budget says so
    run, options = tmp_path / "run", ["--config", str(tmp_path / "short.yaml"), "--quiet"]
    done = CliRunner().invoke(app, ["distill", str(corpus), "--teacher", str(judge()), "--output", str(run), *options])
    assert done.exit_code == 0, done.output
    fitted, cut = MixLM.from_pretrained(run / "model"), MixLM.from_cross_encoder(judge(), mix_layer=2, tokens=4)
    assert fitted.config == cut.config
    for own, before in zip(fitted.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(own, before, atol=1e-3, rtol=0)
    assert list(json.loads((run / "fidelity.json").read_text())) == ["start k=1", "start k=4", "k=1", "k=4"]
    (tmp_path / "short.yaml").write_text(
        (tmp_path / "short.yaml").read_text().replace("tokens: 4", "tokens: 4, fixed_documents: true")
    )
    done = CliRunner().invoke(app, ["distill", str(corpus), "--teacher", str(judge()), "--output", str(run), *options])
    assert isinstance(done.exception, InputError) and "another configuration of the model" in str(done.exception)

    teacher = str(judge("modernbert", classifier_pooling="mean"))
    done = CliRunner().invoke(app, ["distill", str(corpus), "--teacher", teacher, "--output", str(tmp_path / "other")])
    assert isinstance(done.exception, InputError)
    assert "ModernBert" in str(done.exception) and "--model default" in str(done.exception)
    teacher = str(judge("qwen3"))  # sentence-transformers reads its pairs without a prompt
    done = CliRunner().invoke(app, ["distill", str(corpus), "--teacher", teacher, "--output", str(tmp_path / "other")])
    assert isinstance(done.exception, InputError) and "reads them with another prompt" in str(done.exception)


def test_a_cut_model_can_be_distilled_again(corpus: Path, judge: Callable[..., Path], tmp_path: Path) -> None:
    """By the recipe for cut models: their item encoder gives no embeddings, which the usual one trains, too."""
    MixLM.from_cross_encoder(judge(), tokens=4).save_pretrained(tmp_path / "cut")
    command = ["distill", str(corpus), "--teacher", str(judge()), "--model", str(tmp_path / "cut"), "--quiet"]
    short, bare = tmp_path / "short.yaml", tmp_path / "bare.yaml"
    short.write_text("extends: distill/cut\nstart: {tokens: 2}\noptions: {queries: 40}\njoint: {budgets: [2]}\n")
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "run"), "--config", str(short)])
    assert done.exit_code == 0, done.output
    assert "is ignored: --model" in done.output and "verify:20@" in done.output
    bare.write_text("options: {queries: 40}\n")
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "bare"), "--config", str(bare)])
    assert isinstance(done.exception, InputError) and "the loss cosine compares embeddings" in str(done.exception)
    assert not (tmp_path / "bare" / "teacher.npy").exists()


def test_the_teacher_is_quick_to_learn_from_and_exact_to_measure_against(
    corpus: Path,
    fresh: Callable[..., MixLM],
    cross_encoder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mixlm_rerank.model.running.bf16_pays", lambda device=None: True)
    fresh("bert", tokens=2).save_pretrained(tmp_path / "start")
    # small weights, which pass a rounding error on and do not magnify it
    source, run = str(cross_encoder(initializer_range=0.1)), tmp_path / "run"
    (tmp_path / "short.yaml").write_text("options: {queries: 40, held_out: 0.1}\njoint: {budgets: [1], bf16: true}\n")
    command = ["distill", str(corpus), "--teacher", source, "--output", str(run), "--model", str(tmp_path / "start")]
    done = CliRunner().invoke(app, [*command, "--config", str(tmp_path / "short.yaml"), "--quiet"])
    assert done.exit_code == 0, done.output

    texts = {document.docid: document.content for document in open_corpus(str(corpus))}
    exact = CrossEncoder(source, loading=Loading("cpu", "float32", True))
    pools = read_pools(run / "pools.jsonl")
    learned = np.load(run / "teacher.npy")
    own = exact.score_batch([pool.query for pool in pools], [[texts[docid] for docid in pool.docids] for pool in pools])
    flat = np.concatenate(own)
    learned = np.concatenate([row[: len(pool.docids)] for row, pool in zip(learned, pools, strict=True)])
    read = ~np.isnan(learned)
    assert 0.4 < read.mean() < 1  # what no step reads is not scored
    learned, flat = learned[read], flat[read]
    assert not np.array_equal(learned, flat) and np.corrcoef(learned, flat)[0, 1] > 0.98

    topics = synthetic_queries(open_corpus(str(corpus)), 40, 0)
    _, *rows = map(json.loads, (run / "held-out" / f"{short_name(source)}.jsonl").read_text().splitlines())
    assert len(rows) == 5  # four queries held out, and what it cost
    for row in rows[:-1]:
        docids, scores, _ = zip(*row["docs"], strict=True)
        again = exact.score_batch([topics[row["qid"]]], [[texts[docid] for docid in docids]])[0]
        np.testing.assert_allclose(scores, again, atol=1e-4)


def test_candidates_come_from_a_run_where_one_is_given_and_from_no_other_later(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path
) -> None:
    queries = {f"q{n}": f"dog cat {n}" for n in range(12)}
    path = tmp_path / "run.trec"
    path.write_text("".join(f"{qid} Q0 d{n} {n + 1} {9 - n} x\n" for qid in queries for n in range(5)))
    joint = JointOptions(budgets=(1,), save_every=1000)
    options = DistillOptions(depth=5)

    def fitted() -> None:
        fitted_to_words(
            corpus,
            fresh("bert", tokens=2),
            tmp_path / "out",
            queries=queries,
            first_stage=RunFile(path),
            options=options,
            joint=joint,
        )

    fitted()
    pools = read_pools(tmp_path / "out" / "pools.jsonl")
    assert {docid for pool in pools for docid in pool.docids} == {f"d{n}" for n in range(5)}
    corpus.write_text(corpus.read_text().replace("dog", "wolf"))
    with pytest.raises(InputError, match="was begun with another corpus"):
        fitted()
    corpus.write_text(corpus.read_text().replace("wolf", "dog"))
    path.write_text(path.read_text().replace(" d4 ", " d9 "))
    with pytest.raises(InputError, match="was begun with another first stage"):
        fitted()


def test_queries_may_have_different_numbers_of_candidates(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path
) -> None:
    """Also where the one with most is chosen by and not trained on."""

    def watched(longest: str) -> Pool:
        path = tmp_path / f"{longest}.trec"
        sizes = {f"q{n}": 5 if f"q{n}" == longest else 3 for n in range(12)}
        lines = (f"{qid} Q0 d{n} {n + 1} {9 - n} x" for qid, size in sizes.items() for n in range(size))
        path.write_text("\n".join(lines))
        fitted_to_words(
            corpus,
            fresh("bert", tokens=1),
            tmp_path / longest,
            queries={f"q{n}": f"dog cat {n}" for n in range(12)},
            first_stage=RunFile(path),
            options=DistillOptions(candidates=6, group=4),
            joint=JointOptions(budgets=(1,), measure_start=False),
        )
        return read_pools(tmp_path / longest / "pools.jsonl")[0]

    first = watched("none")
    assert (len(first.docids), len(watched(first.qid).docids)) == (3, 5)


def test_what_does_not_change_the_result_may_change_in_between(
    corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path
) -> None:
    """Such as how many queries fit into memory at once: the mend that is offered when it runs out."""

    def fitted(**changes: Any) -> None:
        fitted_to_words(
            corpus,
            fresh("bert", tokens=1),
            tmp_path,
            options=DistillOptions(queries=20, depth=5),
            joint=JointOptions(budgets=(1,), **changes),
        )

    fitted()
    fitted(queries_at_once=2, checkpoint_activations=True)
    with pytest.raises(InputError, match="was begun with another setting"):
        fitted(temperature=2.0)


def test_queries_of_another_corpus_are_refused(corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path) -> None:
    """All but one, which cannot be trained on and chosen by at once."""
    with pytest.raises(InputError, match="two documents or more for 1 of .* two such queries are needed"):
        fitted_to_words(
            corpus,
            fresh("bert", tokens=8),
            tmp_path,
            queries={"q": "dog moon"} | {f"q{n}": f"unknown{n}" for n in range(12)},
        )


def test_the_recipe_for_a_mixlm_says_what_the_defaults_are() -> None:
    shipped = files("mixlm_rerank.training") / "recipes" / "distill" / "default.yaml"
    assert load_recipe(str(shipped), {}, DistillRecipe).options == DistillOptions()


@pytest.mark.parametrize(
    ("gains", "told"),
    [
        ((0.1, 0.2), "better than the start at every token budget (k=1 +.100, k=2 +.200), on 70 held-out queries"),
        (
            (0.1, 0.0),
            "better than the start at k=1, not at k=2 (k=1 +.100, k=2 .000), on 70 held-out queries; try more ",
        ),
        (
            (-0.1, 0.0),
            "not better than the start at any token budget (k=1 \N{MINUS SIGN}.100, k=2 .000), on 70 held-out",
        ),
    ],
)
def test_the_verdict(gains: tuple[float, float], told: str) -> None:
    start = {f"start k={k}": Fidelity(0.5, 0.5, 0.5, 0.5, 70) for k in (1, 2)}
    fitted = {f"k={k}": Fidelity(0.5 + gain, 0.5, 0.5, 0.5, 70) for k, gain in enumerate(gains, 1)}
    assert verdict({**start, **fitted}).startswith(told)


@pytest.mark.parametrize("given", ["few.tsv", "judged@train"])
def test_too_few_queries_are_refused(corpus: Path, fresh: Callable[..., MixLM], tmp_path: Path, given: str) -> None:
    (tmp_path / "few.tsv").write_text("1\tdog moon\n2\tcat bread\n")
    (tmp_path / "judged" / "qrels").mkdir(parents=True)
    rows = [{"_id": f"q{n}", "text": f"dog moon {n}"} for n in range(20)]
    (tmp_path / "judged" / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, judged in (("train", (3, 5)), ("test", range(6, 20))):
        lines = [f"q{n}\td1\t1" for n in judged]
        (tmp_path / "judged" / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]))
    fresh().save_pretrained(tmp_path / "start")
    options = [
        "--output",
        str(tmp_path / "run"),
        "--queries",
        str(tmp_path / given),
        "--model",
        str(tmp_path / "start"),
    ]
    done = CliRunner().invoke(app, ["distill", str(corpus), "--teacher", "full-text", *options])
    assert isinstance(done.exception, InputError) and "2 different queries are too few" in str(done.exception)


def test_what_is_held_out_does_not_depend_on_the_order_of_queries() -> None:
    queries = {f"q{n}": f"query {n // 2}" for n in range(40)}  # two of each
    assert _divided(queries, 0.2, 0) == _divided(dict(reversed(queries.items())), 0.2, 0)
