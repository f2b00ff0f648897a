"""A recipe carried out on a tiny collection, by the command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import sentence_transformers
import torch
import yaml
from typer.testing import CliRunner

from mixlm_rerank import MixLM
from mixlm_rerank.cli import app
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems.collections import open_collection
from mixlm_rerank.systems.sentence_transformers import CrossEncoder
from mixlm_rerank.training.development import development_values
from mixlm_rerank.training.pools import read_pools
from mixlm_rerank.training.recipe import CollectionPart, ModelPart, load_recipe
from mixlm_rerank.training.run import run_recipe, start
from mixlm_rerank.training.sources import pooled
from mixlm_rerank.training.stage1 import Judgement, ReasoningPart, train_reasoning
from mixlm_rerank.training.stage2 import CandidateLoss, CrossEncoderPart, Example, train_cross_encoder


def test_a_recipe_gives_a_model_that_ranks_and_a_history(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    path = recipe(steps=4)
    done = CliRunner().invoke(app, ["train", str(path), "--data", str(beir), "--output", str(run), "--quiet"])
    assert done.exit_code == 0, done.output
    made = yaml.safe_load(path.read_text())["model"]
    start = MixLM.from_backbones(made["item_encoder"], made["ranker"], **made["options"])
    assert MixLM.from_pretrained(run / "model").fingerprint != start.fingerprint
    history = json.loads((run / "joint" / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "listwise" in row] == [1, 2, 3, 4]
    made = [*run.glob("pools-100/*.jsonl"), *run.glob("teachers/*/*.npy"), *run.glob("joint/model/*")]
    before = [path.stat().st_mtime_ns for path in made]
    run_recipe(load_recipe(path, {"data": str(beir)}), run, progress=False)  # again: nothing is left to do
    assert len(made) > 5 and [path.stat().st_mtime_ns for path in made] == before


def test_the_ranker_goes_on_alone_where_a_recipe_says_so(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the best of the joint models, over its embedding tokens; the test decides which checkpoints are best."""
    values = iter([0.1, 0.3, 0.2, 0.3, 0.5, 0.4])
    asked: list[dict[str, torch.Tensor]] = []

    def measured(model: MixLM, **options: Any) -> dict[str, float]:
        asked.append({name: weight.detach().clone() for name, weight in model.state_dict().items()})
        return development_values(model, **options) | {"k=4": next(values)}

    monkeypatch.setattr("mixlm_rerank.training.development.development_values", measured)
    path = recipe(
        steps=4,
        ranker={"steps": 4, "queries": 3, "candidates": 4, "learning_rates": [1e-3, 1e-2], "save_every": 2},
        collections=[{"source": str(beir), "split": "test"}],
        development=[{"source": str(beir), "split": "dev"}],
    )
    part = load_recipe(path, {"data": str(beir)})
    run = run_recipe(part, tmp_path / "run", progress=False).parent
    for name, values in (("joint", {0: 0.1, 2: 0.3, 4: 0.2}), ("ranker", {0: 0.3, 2: 0.5, 4: 0.4})):
        log = json.loads((run / name / "trainer_state.json").read_text())["log_history"]
        assert {row["step"]: row["eval_k=4"] for row in log if "eval_k=4" in row} == values
    start, trained = (MixLM.from_pretrained(run / name, dtype="float32") for name in ("joint/model", "ranker/model"))

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(weight, other[name]) for name, weight in one.items())

    assert [same(weights, start.state_dict()) for weights in asked] == [False, True, False, True, False, False]
    assert [same(weights, trained.state_dict()) for weights in asked] == [False] * 4 + [True, False]
    assert trained.fingerprint == start.fingerprint  # the item encoder stayed as it was


def test_runs_of_several_seeds_share_candidates_and_teacher_scores(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    path, shared = recipe(), tmp_path / "shared"
    command = ["train", str(path), "--data", str(beir), "--shared", str(shared), "--quiet"]
    prints = set()
    for seed in (1, 2):
        done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / str(seed)), "--seed", str(seed)])
        assert done.exit_code == 0, done.output
        assert sorted(own.name for own in (tmp_path / str(seed)).iterdir()) == [
            "inputs.json",
            "joint",
            "model",
            "overlaps.json",
        ]
        prints.add(MixLM.from_pretrained(tmp_path / str(seed) / "model").fingerprint)
    assert len(prints) == 2 and len(list(shared.glob("pools-100/*.jsonl"))) == 1
    assert len(list(shared.glob("teachers/max-sim/*.npy"))) == 1


def test_a_collection_may_count_its_labels_otherwise(beir: Path, tmp_path: Path) -> None:
    for labels, expected in ((0.0, 0.0), (None, 3.0)):
        part = CollectionPart(str(beir), split="dev", labels=labels)
        own = pooled(open_collection(part.source, part.split), part, 10, tmp_path / "pools", progress=False)
        assert own.labelled(3.0).label_scale == expected


def test_every_first_stage_has_pools_and_teacher_scores_of_its_own(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    path, docids = tmp_path / "run.trec", [f"d{n}" for n in range(1, 4)]
    path.write_text("".join(f"q{q} Q0 {docid} 1 {n} x\n" for q in (1, 2, 3) for n, docid in enumerate(docids)))
    part = {"source": str(beir), "split": "dev"}
    run = tmp_path / "run"
    run_recipe(load_recipe(recipe(collections=[part, {**part, "first_stages": [f"run:{path}"]}])), run, progress=False)
    of_run, of_bm25 = map(read_pools, sorted((run / "pools-100").glob("tiny-dev-*.jsonl"), key=_size))
    relevant = {docid for pool in of_run for docid in pool.relevant}
    assert {docid for pool in of_run for docid in pool.docids} == {*docids, *relevant}
    assert of_bm25 != of_run
    assert len(list(run.glob("teachers/max-sim/tiny-dev-*.npy"))) == 2


def test_candidates_of_several_first_stages_come_in_turn(
    beir: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Dense retrieval finds what has no word in common with the query."""
    dense = f"dense:{checkpoint('bert')}"
    pools = {}
    for words in (["bm25"], [dense], ["bm25", dense]):
        part = CollectionPart(str(beir), split="dev", first_stages=words)
        own = pooled(open_collection(part.source, part.split), part, 4, tmp_path / "pools", progress=False)
        pools[" ".join(words)] = {pool.qid: pool.docids for pool in own.source.pools}
    sparse, near, both = pools.values()
    for qid, docids in both.items():
        assert len(docids) == 4 and {*docids} <= {*sparse.get(qid, ()), *near[qid]}
    assert any({*docids} - {*sparse.get(qid, ())} for qid, docids in both.items())


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(loss, marks=[] if loss in ("ListNet", "PListMLE") else pytest.mark.slow)
        for loss in get_args(CandidateLoss)
    ],
)
def test_a_cross_encoder_learns_by_every_loss(checkpoint: Callable[..., Path], tmp_path: Path, loss: Any) -> None:
    """Of two documents, the one that is to come first."""
    examples = [Example("dogs", ["bread is salt", "a dog barks"], [0.0, 3.0])] * 40
    part = CrossEncoderPart(str(checkpoint("bert")), learning_rate=1e-2, loss=loss)
    folder = train_cross_encoder(part, examples, tmp_path)
    worse, better = sentence_transformers.CrossEncoder(str(folder)).predict(
        [("dogs", text) for text in examples[0].docs]
    )
    assert better > worse + 0.1


def test_candidates_can_be_drawn_from_judged_documents_alone(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    shutil.copytree(beir, tmp_path / "tiny")
    judged = {"d1": 2, "d3": 1}
    lines = ["query-id\tcorpus-id\tscore", *(f"q1\t{docid}\t{grade}" for docid, grade in judged.items())]
    (tmp_path / "tiny" / "qrels" / "one.tsv").write_text("\n".join(lines) + "\n")
    part = {"source": str(tmp_path / "tiny"), "split": "one"}
    path = recipe(collections=[part, {**part, "judged_only": True}])
    run_recipe(load_recipe(path), tmp_path / "run", progress=False)
    (few,), (every,) = map(read_pools, sorted((tmp_path / "run" / "pools-100").glob("*.jsonl"), key=_size))
    assert set(few.docids) == set(judged) < set(every.docids)


def test_a_cross_encoder_is_trained_and_teaches(
    recipe: Callable[..., Path], beir: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = recipe(
        cross_encoder={
            "start": str(checkpoint("bert", hidden_dropout_prob=0.0)),
            "steps": 3,
            "queries": 2,
            "candidates": 3,
            "arguments": {"save_steps": 1, "bf16": True},
        },
        teacher={"members": {"cross-encoder:{run}/cross-encoder/model": 2.0}, "labels": 0},
    )
    run = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", str(path), "--data", str(beir), "--output", str(run), "--quiet"])
    assert done.exit_code == 0, done.output
    (path,) = run.glob("pools-100/tiny-dev-*.jsonl")
    pools = read_pools(path)
    (kept,) = (run / "teachers" / "cross-encoder-cross-encoder").glob("tiny-dev-*.npy")
    scores = np.load(kept)
    texts = {document.docid: document.content for document in open_collection(str(beir), "dev").corpus or ()}
    judge = CrossEncoder(str(run / "cross-encoder" / "model"))
    asked = [pool.query for pool in pools]
    answers = judge.score_batch(asked, [[texts[docid] for docid in pool.docids] for pool in pools])
    for row, (pool, expected) in enumerate(zip(pools, answers, strict=True)):
        (alone,) = judge.score_batch([pool.query], [[texts[docid] for docid in pool.docids]])
        np.testing.assert_allclose(expected, alone, atol=1e-5)
        known = ~np.isnan(scores[row, : len(expected)])
        assert known.any()
        np.testing.assert_allclose(scores[row, : len(expected)][known], expected[known], atol=1e-5)


def test_the_papers_shape_goes_through_all_three_stages(
    beir: Path, checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped recipe, with a tiny random Qwen3 in place of the two of 0.6 B, and few steps."""
    shipped = files("mixlm_rerank.training") / "recipes" / "train" / "qwen3-0.6b.yaml"
    values = yaml.safe_load(shipped.read_text())
    tiny = str(checkpoint("qwen3"))
    short = {"save_steps": 1, "max_steps": 2}
    values["reasoning"] |= {"checkpoint": tiny, "max_length": 500, "arguments": short}
    values["cross_encoder"] |= {"steps": 2, "queries": 2, "candidates": 2, "max_length": 64, "arguments": short}
    values["model"]["item_encoder"] = tiny
    values["model"]["options"] |= {"max_query_tokens": 64, "max_document_tokens": 40}
    values["collections"] = [{"source": "{data}/tiny", "split": "test"}]
    values["development"] = [{"source": "{data}/tiny", "split": "dev"}]
    values["joint"] |= {"bf16": False, "save_every": 2}
    values |= {"steps": 3, "queries": 2, "candidates": 2}
    (tmp_path / "tiny").symlink_to(beir)
    asked = "A dog barks at the Moon?"  # a development query has the same letters
    known = {"query": asked, "document": "A dog.", "rationale": "It is about dogs.", "grade": 0.5}
    judged = Path(__file__).with_name("reasoning.jsonl").read_text()
    (tmp_path / "judgements.jsonl").write_text(judged + json.dumps(known) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    run = tmp_path / "run"
    learned: list[Judgement] = []

    def noted(part: ReasoningPart, judgements: list[Judgement], folder: Path, **options: Any) -> Path:
        learned.extend(judgements)
        return train_reasoning(part, judgements, folder, **options)

    monkeypatch.setattr("mixlm_rerank.training.run.train_reasoning", noted)
    model = run_recipe(load_recipe(path, {"data": str(tmp_path), "run": str(run)}), run, progress=False)
    trained = MixLM.from_pretrained(model)
    assert trained.config.tokens == 1 and trained.ranker.family.causal
    assert json.loads((run / "reasoning" / "overlaps.json").read_text()) == {asked: "tiny dev"}
    assert len(learned) == 6 and asked not in {one.query for one in learned}
    losses = [
        row
        for row in json.loads((run / "joint" / "trainer_state.json").read_text())["log_history"]
        if "eval_k=1" in row
    ]
    assert losses
    for folder in ("reasoning", "cross-encoder"):
        assert (run / folder / "model").is_dir()


def test_a_folder_is_gone_on_with_by_the_same_recipe_alone(
    recipe: Callable[..., Path], beir: Path, tmp_path: Path
) -> None:
    places = {"data": str(beir)}
    run_recipe(load_recipe(recipe(), places), tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="was begun with another recipe: choose another folder"):
        run_recipe(load_recipe(recipe(steps=5), places), tmp_path / "run", progress=False)


def test_a_recipe_may_extend_another_and_end_with_the_cross_encoder(
    recipe: Callable[..., Path], beir: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    part = {"start": str(checkpoint("bert", hidden_dropout_prob=0.0)), "steps": 2, "queries": 2, "candidates": 2}
    path, run = recipe().with_name("stage2.yaml"), tmp_path / "run"
    path.write_text(yaml.safe_dump({"extends": "recipe.yaml", "cross_encoder": part, "steps": 0}))
    done = CliRunner().invoke(app, ["train", str(path), "--data", str(beir), "--output", str(run), "--quiet"])
    assert done.exit_code == 0, done.output
    assert f"{run}/cross-encoder/model: trained\n" in done.output and not (run / "joint").exists()
    assert CrossEncoder(str(run / "cross-encoder" / "model")).score_batch(["a dog"], [["a dog"]])[0].shape == (1,)


def test_what_the_earlier_stages_cannot_use_is_told(
    recipe: Callable[..., Path], beir: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    start = str(checkpoint("bert", hidden_dropout_prob=0.0))
    for part, message in (
        ({"start": "/no/such"}, "'/no/such' is not a checkpoint that a cross-encoder can start from"),
        ({"start": start, "arguments": {"epochs": 3}}, "the arguments of this training: .*epochs"),
        ({"start": start, "arguments": {"seed": 3}}, "the arguments of this training: seed is not to be set there"),
    ):
        path = recipe(cross_encoder={"steps": 1, "queries": 2, "candidates": 2, **part})
        with pytest.raises(InputError, match=message):
            run_recipe(load_recipe(path, {"data": str(beir)}), tmp_path / "run", progress=False)
        shutil.rmtree(tmp_path / "run")


def test_new_weights_follow_the_seed(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Projector and memory tokens; the head of a cross-encoder."""
    part = ModelPart(
        item_encoder=str(checkpoint("bert", hidden=32)),
        ranker=str(checkpoint("bert")),
        options={"memory_tokens": 4, "max_query_tokens": 64, "max_document_tokens": 40},
    )

    def drawn(seed: int) -> torch.Tensor:
        torch.rand(1)  # whatever was drawn before
        model = start(part, True, seed)
        assert model.projector is not None
        return torch.cat([model.projector.weight.flatten(), model.item_encoder.memory.flatten()])

    def head(seed: int, name: str) -> torch.Tensor:
        torch.rand(1)
        examples = [Example("a dog", ["a dog", "bread"], [1.0, 0.0])]
        train_cross_encoder(
            CrossEncoderPart(part.ranker or "", learning_rate=1e-6), examples, tmp_path / name, seed=seed
        )
        model = sentence_transformers.CrossEncoder(str(tmp_path / name / "model"), local_files_only=True).model
        return model.classifier.weight

    for found, again, other in (
        (drawn(1), drawn(1), drawn(2)),
        (head(1, "a"), head(1, "b"), head(2, "c")),
    ):
        assert torch.allclose(found, again, atol=1e-4) and not torch.allclose(found, other, atol=1e-2)


def test_what_is_made_of_other_data_is_made_anew_or_refused(
    recipe: Callable[..., Path], beir: Path, cross_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    """Documents, judgments, a teacher that was trained further at the same place: nothing old is kept."""
    data, judge, shared = tmp_path / "tiny", tmp_path / "judge", tmp_path / "shared"
    shutil.copytree(beir, data)
    shutil.copytree(cross_encoder(), judge)
    members = {"max-sim": 27, "bm25": 1.5, f"cross-encoder:{judge}": 1}
    path = recipe(collections=[{"source": str(data), "split": "dev"}], teacher={"members": members}, steps=2)

    def run(name: str) -> None:
        run_recipe(load_recipe(path), tmp_path / name, shared=shared, progress=False)

    def made() -> dict[str, int]:
        kinds = {
            "pools": "shared/pools-100/*.jsonl",
            "max-sim": "shared/teachers/max-sim/*.npy",
            "bm25": "shared/teachers/bm25/*.npy",
            "judge": "shared/teachers/cross-encoder-judge/*.npy",
        }
        return {kind: len(list(tmp_path.glob(pattern))) for kind, pattern in kinds.items()}

    def retrained() -> None:
        model = sentence_transformers.CrossEncoder(str(judge), local_files_only=True)
        with torch.no_grad():
            model.model.classifier.weight.add_(1.0)
        model.save_pretrained(str(judge))

    def edited(file: str, old: str, new: str) -> None:
        text = (data / file).read_text()
        assert old in text
        (data / file).write_text(text.replace(old, new))

    run("first")
    before = made()
    assert before == {"pools": 1, "max-sim": 1, "bm25": 1, "judge": 1}
    for change, remade in (
        (retrained, {"judge"}),
        (lambda: edited("qrels/dev.tsv", "q1\td1\t2", "q1\td1\t1"), {"pools"}),  # the same candidates
        (lambda: edited("corpus.jsonl", "A dog barks", "A wolf barks"), {"pools", "max-sim", "bm25", "judge"}),
    ):
        change()
        with pytest.raises(InputError, match="first/joint was begun with another set of training data: choose another"):
            run("first")
        after = made()
        assert {kind for kind in after if after[kind] == before[kind] + 1} == remade
        before = after
    run("second")
    assert made() == before  # nothing is left to make


def _size(path: Path) -> int:
    return path.stat().st_size


def test_the_pages_example_trains(
    cross_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "training.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cross_encoder(hidden_dropout_prob=0.0), "MY_CROSS_ENCODER")
    exec(code, {})
    assert MixLM.from_pretrained("mine").config.mix_layer
