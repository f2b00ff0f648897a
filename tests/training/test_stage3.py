"""Stage III: it learns; killed and resumed it ends with the same weights; the best model is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.training.joint import JointObjective
from mixlm_rerank.training.losses import LossWeights
from mixlm_rerank.training.mix import Source, TrainingMix
from mixlm_rerank.training.stage3 import JointOptions, train_joint
from mixlm_rerank.training.trainer import JointTrainer

OPTIONS = JointOptions(
    phases=(LossWeights(pred=0.5, hidden=0.5, listwise=0.5), LossWeights(listwise=1.0, cosine=0.3)),
    budgets=(1, 4),
    learning_rates=(1e-3, 1e-3, 1e-2),
    log_every=2,
    save_every=3,
)


def a_mix(source: Source, steps: int = 12) -> TrainingMix:
    return TrainingMix([source], steps, queries=4, candidates=4)


def weights(model: MixLM) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_it_learns_the_teachers_ranking_at_every_budget(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, architecture: str
) -> None:
    model, batch = fresh(architecture), a_mix(source)[0]

    def losses() -> list[float]:
        with torch.no_grad():
            return [JointObjective(model)(batch, LossWeights(listwise=1), [k])["loss"].item() for k in (1, 4)]

    before = losses()
    train_joint(model, a_mix(source, 60), tmp_path, replace(OPTIONS, save_every=1000), progress=False)
    # .02 of it and less, also where the weights at the start are a thousandth off: far from what rounding can do
    assert all(after < 0.5 * start for start, after in zip(before, losses(), strict=True))


@pytest.fixture(scope="module")
def whole(
    fresh: Callable[..., MixLM], source: Source, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    """The weights that an uninterrupted run ends with."""
    model = fresh()
    options = replace(OPTIONS, save_every=1000)
    train_joint(model, a_mix(source), tmp_path_factory.mktemp("whole"), options, progress=False)
    return weights(model)


def test_killed_and_resumed_it_ends_with_the_weights_of_an_uninterrupted_run(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    child = os.fork()
    if not child:
        step = JointObjective.forward

        def deadly(self: JointObjective, *arguments: object) -> dict[str, torch.Tensor]:
            deadly.steps += 1  # type: ignore[attr-defined]
            if deadly.steps == 9:  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *arguments)  # type: ignore[arg-type]

        deadly.steps = 0  # type: ignore[attr-defined]
        JointObjective.forward = deadly  # type: ignore[method-assign,assignment]
        try:
            train_joint(fresh(), a_mix(source), tmp_path / "killed", OPTIONS, progress=False)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert {path.name for path in (tmp_path / "killed").glob("checkpoint-*")} == {"checkpoint-6"}
    resumed = fresh()
    train_joint(resumed, a_mix(source), tmp_path / "killed", OPTIONS, progress=False)
    for name, weight in whole.items():
        assert torch.equal(weight, weights(resumed)[name]), name


def test_a_checkpoint_that_was_only_begun_is_passed_over(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    measured = iter([{"k=4": 0.1}] * 3)  # of steps 0, 3 and 6: at 9 it fails, before that is saved
    with pytest.raises(StopIteration):
        train_joint(
            fresh(), a_mix(source), tmp_path / "torn", OPTIONS, development=lambda _: next(measured), progress=False
        )
    shutil.copytree(tmp_path / "torn" / "checkpoint-6", tmp_path / "torn" / "checkpoint-12")
    (tmp_path / "torn" / "checkpoint-12" / "trainer_state.json").unlink()
    (tmp_path / "torn" / "checkpoint-15").mkdir()
    again = fresh()
    train_joint(again, a_mix(source), tmp_path / "torn", OPTIONS, progress=False)
    for name, weight in whole.items():
        assert torch.equal(weight, weights(again)[name]), name


def test_what_is_finished_is_loaded_and_leaves_no_checkpoint(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    trained = train_joint(fresh(), a_mix(source, 3), tmp_path, OPTIONS, progress=False)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"model"}
    again = train_joint(fresh(), a_mix(source, 3), tmp_path, OPTIONS, progress=False)
    for name, weight in weights(trained).items():
        assert torch.equal(weight, weights(again)[name]), name


def test_the_plot_has_labels_and_no_line_twice(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: None
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    options = replace(OPTIONS, phases=(LossWeights(listwise=1.0),))
    values = {"a k=1": 0.3, "a k=4": 0.5, "k=1": 0.3, "k=4": 0.5}
    train_joint(fresh(), a_mix(source), tmp_path, options, development=lambda _: values, progress=False)
    losses, development = drawn[-1].axes
    assert [line.get_label() for line in losses.lines] == ["loss = listwise"]
    assert [line.get_label() for line in development.lines] == ["a k=1 = k=1", "a k=4 = k=4"]
    assert (losses.get_ylabel(), development.get_ylabel()) == ("loss", "nDCG@10")


def test_a_full_disk_is_said_and_the_last_checkpoint_is_whole(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = JointTrainer._save_optimizer_and_scheduler

    def full(self: JointTrainer, folder: str) -> None:
        if self.state.global_step == 6:
            raise OSError(28, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(JointTrainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(InputError, match="checkpoint-6 .*No space left.*it goes on from the last one"):
        train_joint(fresh(), a_mix(source), tmp_path, OPTIONS, progress=False)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def test_what_was_measured_and_the_best_model_outlive_a_kill(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    """Killed after step 6, the best so far; what comes later is worse."""
    kept = []
    values = {0: 0.1, 3: 0.3, 6: 0.5, 9: 0.4, 12: 0.2}

    def killed(model: MixLM) -> dict[str, float]:
        kept.append(weights(model))
        if len(kept) == 4:
            raise KeyboardInterrupt
        return {"k=4": values[3 * len(kept) - 3]}

    options: dict[str, Any] = {"choose_by": "k=4", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        train_joint(fresh(), a_mix(source), tmp_path, OPTIONS, development=killed, **options)
    rest = iter([0.4, 0.2])  # step 9 was not measured, and so not saved
    best = train_joint(fresh(), a_mix(source), tmp_path, OPTIONS, development=lambda _: {"k=4": next(rest)}, **options)
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert {row["step"]: row["eval_k=4"] for row in history if "eval_k=4" in row} == values
    for name, weight in kept[2].items():
        assert torch.equal(weight, weights(best)[name]), name


def test_in_mixed_precision_scores_stay_float32(fresh: Callable[..., MixLM], source: Source) -> None:
    """bfloat16 has steps of 1/16 at 16: near ties would be ties."""
    model, batch = fresh(), a_mix(source)[0]
    torch.nn.init.normal_(model.readout.score.weight)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        losses = JointObjective(model)(batch, LossWeights(listwise=1, cosine=1), [4])
        states = torch.randn(50, 64)
        scores = model.readout(states)
    assert losses["cosine"].dtype == scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def losses_of(folder: Path) -> list[float]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row["listwise"] for row in history if "listwise" in row]


def test_a_step_in_several_passes_is_the_same_step(fresh: Callable[..., MixLM], source: Source, tmp_path: Path) -> None:
    options = replace(OPTIONS, phases=(LossWeights(listwise=1.0, cosine=0.3),), save_every=4)
    train_joint(fresh(), a_mix(source, 4), tmp_path / "whole", options, progress=False)
    for size in (3, 1):
        own = replace(options, queries_at_once=size)
        train_joint(fresh(), a_mix(source, 4), tmp_path / str(size), own, progress=False)
        assert losses_of(tmp_path / str(size)) == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-3)


def test_pieces_of_a_step_have_the_losses_of_the_whole(fresh: Callable[..., MixLM], source: Source) -> None:
    """Though their queries have different numbers of pairs: pointwise losses are means over pairs."""
    model, batch = fresh(), a_mix(source)[0]
    torch.nn.init.normal_(model.readout.score.weight)
    labels, teacher = batch.labels.clone(), batch.teacher.clone()
    labels[0, batch.own[0][1:]] = torch.nan
    teacher[1, batch.own[1][2:]] = torch.nan
    batch = replace(batch, labels=labels, teacher=teacher)
    objective, every = JointObjective(model, texts_per_query=3), LossWeights(*[1.0] * len(fields(LossWeights)))

    def gradients(losses: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        model.zero_grad()
        torch.stack([one["loss"] for one in losses]).sum().backward()
        return torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None])

    whole = objective(batch, every, [4, 1])
    for size in (3, 1):
        pieces = [objective(piece, every, [4, 1], batch) for piece in batch.pieces(size)]
        for name in whole:
            assert sum(one[name].item() for one in pieces) == pytest.approx(whole[name].item(), rel=1e-3), name
        together = gradients([objective(batch, every, [4, 1])])
        assert (gradients(pieces) - together).norm() < 1e-3 * together.norm()


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "qwen3"])
def test_there_is_no_dropout(
    checkpoint: Callable[..., Path], source: Source, tmp_path: Path, architecture: str
) -> None:
    """Of attention, too, which is a number and no module in decoders."""
    names = {"bert": "attention_probs_dropout_prob"}
    folder = checkpoint(architecture, **{names.get(architecture, "attention_dropout"): 0.5})
    model = MixLM.from_backbones(folder, folder, tokens=4, max_query_tokens=64, max_document_tokens=40)
    train_joint(model, a_mix(source, 1), tmp_path, OPTIONS, progress=False)
    objective, batch = JointObjective(model.train()), a_mix(source)[0]
    first, again = (objective(batch, LossWeights(listwise=1, text=1), [4])["loss"].item() for _ in range(2))
    assert first == again


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_no_number_ends_the_training(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, log_every: int
) -> None:
    """Before anything is saved of it."""
    model = fresh()
    steps: list[int] = []

    def packed(*arguments: Any, plain: Any = model.ranker.forward_packed) -> Any:
        steps.append(1)
        return [states * (torch.nan if len(steps) > 8 else 1.0) for states in plain(*arguments)]

    model.ranker.forward_packed = packed  # type: ignore[method-assign]
    options = replace(OPTIONS, phases=(LossWeights(listwise=1.0),), log_every=log_every)
    with pytest.raises(InputError, match=r"is not a finite number at step [56]: train with a lower learning rate"):
        train_joint(model, a_mix(source), tmp_path, options, progress=False)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def test_when_memory_runs_out_a_step_is_done_in_more_passes(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    """Every forward pass with more than one query fails, as on a GPU that is too small."""
    options = replace(OPTIONS, phases=(LossWeights(listwise=1.0),))
    model = fresh()
    seen: list[int] = []

    def packed(prefixes: Any, *given: Any, plain: Any = model.ranker.forward_packed) -> Any:
        seen.append(len(prefixes))
        if len(prefixes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(prefixes, *given)

    train_joint(fresh(), a_mix(source, 4), tmp_path / "whole", options, progress=False)
    model.ranker.forward_packed = packed  # type: ignore[method-assign]
    train_joint(model, a_mix(source, 4), tmp_path / "short", options, progress=False)
    assert seen == [4, 2, *[1] * 32]  # two budgets each
    assert losses_of(tmp_path / "short") == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-3)


def test_one_query_that_does_not_fit_is_an_error(fresh: Callable[..., MixLM], source: Source, tmp_path: Path) -> None:
    model = fresh()

    def packed(*given: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    model.ranker.forward_packed = packed  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"with 1 query at once: .* joint\.queries_at_once lower, or candidates"):
        train_joint(model, a_mix(source, 3), tmp_path, OPTIONS, progress=False)


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_adapters_alone_are_trained_and_merged_in(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, architecture: str
) -> None:
    """Killed after three steps and gone on with: the same adapters."""
    before, options = weights(fresh(architecture)), replace(OPTIONS, lora={"r": 2})
    whole = train_joint(fresh(architecture), a_mix(source, 6), tmp_path / "whole", options, progress=False)
    measured = iter([{"k=4": 0.1}] * 2)  # of steps 0 and 3: at 6 it fails
    with pytest.raises(StopIteration):
        train_joint(
            fresh(architecture),
            a_mix(source, 6),
            tmp_path / "killed",
            options,
            development=lambda _: next(measured),
            progress=False,
        )
    trained = train_joint(fresh(architecture), a_mix(source, 6), tmp_path / "killed", options, progress=False)
    for name, weight in weights(trained).items():
        assert torch.equal(weight, weights(whole)[name]), name
        if ".backbone." in name:
            changed = weight.ndim == 2 and "embed" not in name
            assert torch.equal(weight, before[name]) != changed, name
            assert not changed or torch.linalg.matrix_rank(weight - before[name], atol=1e-5) <= 2


def test_gradients_of_accumulated_batches_are_averaged(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    mix, weights = a_mix(source, 2), LossWeights(listwise=1.0)
    options = replace(
        OPTIONS, phases=(weights,), budgets=(4,), arguments={"gradient_accumulation_steps": 2, "max_grad_norm": 0.0}
    )
    model, expected, seen = fresh(), fresh(), []
    for one in (model, expected):
        torch.nn.init.constant_(one.readout.score.weight, 0.1)

    def noted(*_: object) -> None:
        seen.append({name: own.grad.clone() for name, own in model.named_parameters() if own.grad is not None})

    handle = register_optimizer_step_pre_hook(noted)
    try:
        train_joint(model, mix, tmp_path, options, progress=False)
    finally:
        handle.remove()
    for number in range(2):
        (JointObjective(expected)(mix[number], weights, [4])["loss"] / 2).backward()
    (found,) = seen
    assert found
    for name, own in expected.named_parameters():
        if name in found:
            assert own.grad is not None and torch.allclose(found[name], own.grad, atol=1e-5), name


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arguments": {"bf16": True}}, "bf16 is not to be set there"),
        ({"arguments": {"max_steps": 3}}, "max_steps is not to be set there"),
        ({"arguments": {"learning_rate": 1e-3}}, "learning_rate is not to be set there"),
        ({"arguments": {"num_train_epochs": 3}}, "num_train_epochs is not to be set there"),
        ({"arguments": {"optim": "wombat"}}, "wombat"),
        ({"arguments": {"optim": "galore_adamw", "optim_target_modules": "all-linear"}}, "optim .*galore_adamw cannot"),
        ({"arguments": {"lr_scheduler_kind": "cosine"}}, "lr_scheduler_kind"),
        ({"lora": {"rank": 4}}, "lora: .*rank"),
        ({"lora": {"target_modules": ["wombat"]}}, "lora: .*wombat"),
    ],
)
def test_options_of_the_libraries_are_checked(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        train_joint(fresh(), a_mix(source, 2), tmp_path, replace(OPTIONS, **changes), progress=False)


def test_optimizer_and_schedule_are_those_of_the_arguments(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    arguments = {"optim": "sgd", "lr_scheduler_type": "constant", "dataloader_num_workers": 1}
    options = replace(OPTIONS, phases=(LossWeights(listwise=1),), save_every=1, arguments=arguments)
    model, before = fresh(), weights(fresh())
    train_joint(model, a_mix(source, 2), tmp_path, options, progress=False)
    log = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    rates = [row["learning_rate"] for row in log if "learning_rate" in row]
    assert set(rates) == {options.learning_rates[0]}  # of the first group, not the highest
    moved = sum(float((weight - before[name]).square().sum()) for name, weight in weights(model).items())
    assert 0 < moved**0.5 < 2 * max(options.learning_rates)  # gradients are clipped to norm 1; AdamW goes much further


def test_the_best_model_by_development_values_is_kept_and_everything_is_drawn(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path, pictures: None
) -> None:
    values = iter([0.1, 0.3, 0.5, 0.4, 0.2])
    kept = []

    def development(model: MixLM) -> dict[str, float]:
        kept.append(weights(model))
        return {"k=4": next(values)}

    model = fresh()
    best = train_joint(
        model, a_mix(source), tmp_path, OPTIONS, development=development, choose_by="k=4", progress=False
    )
    for name, weight in kept[2].items():
        assert torch.equal(weight, weights(best)[name]), name
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    assert [row["eval_k=4"] for row in history if "eval_k=4" in row] == [0.1, 0.3, 0.5, 0.4, 0.2]
    assert {"pred", "hidden", "listwise", "cosine"} <= {name for row in history for name in row}
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_the_start_is_kept_where_training_gains_nothing(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    """Though the run is killed on the way, and whatever is reported goes where the Trainer reports to."""
    before, measured = weights(fresh()), iter([0.5, 0.2])
    options: dict[str, Any] = {"choose_by": "k=4", "progress": False}
    with pytest.raises(StopIteration):  # at step 6
        train_joint(fresh(), a_mix(source), tmp_path, OPTIONS, development=lambda _: {"k=4": next(measured)}, **options)
    rest = iter([0.3, 0.4, 0.5])
    kept = train_joint(fresh(), a_mix(source), tmp_path, OPTIONS, development=lambda _: {"k=4": next(rest)}, **options)
    for name, weight in before.items():
        assert torch.equal(weight, weights(kept)[name]), name
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"model"}
    reported = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    values = {row["step"]: row["eval_k=4"] for row in reported if "eval_k=4" in row}
    assert values == {0: 0.5, 3: 0.2, 6: 0.3, 9: 0.4, 12: 0.5}


def test_budgets_and_values_that_are_not_there_are_refused(
    fresh: Callable[..., MixLM], source: Source, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="between 1 and 4"):
        train_joint(fresh(), a_mix(source), tmp_path, JointOptions(budgets=(1, 8)), progress=False)
    with pytest.raises(InputError, match="'k=9' is not measured; there is k=4"):
        train_joint(
            fresh(),
            a_mix(source),
            tmp_path,
            OPTIONS,
            development=lambda m: {"k=4": 0.0},
            choose_by="k=9",
            progress=False,
        )
