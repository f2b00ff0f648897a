"""``mixlm-rerank eval figures``: are the numbers in README and docs still what the commands find?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from ..errors import InputError, optional_import
from .options import interruptible

if TYPE_CHECKING:
    from ..eval.figures import Checked

__all__ = ["figures"]


def figures(
    output: Annotated[Path, Option(help="Working folder. The same folder resumes; a new one measures again.")],
    file: Annotated[Path, Argument(help="YAML file of experiments and their figures.")] = Path("docs/figures.yaml"),
    data: Annotated[Path | None, Option(help="Folder of the collections: {data} in the commands.")] = None,
    only: Annotated[list[str] | None, Option(help="Name of an experiment; may be repeated.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the commands, and what this machine lacks.")] = False,
) -> None:
    """Run the commands behind the published figures and compare. Exit code 1 if one differs. Runs what can run here."""
    with optional_import("figures need pydantic and PyYAML", "eval"):
        from mixlm_rerank.eval.figures import check, lack, load_experiments, run_experiment

    experiments = load_experiments(file)
    known = [experiment.name for experiment in experiments]
    for name in only or ():
        if name not in known:
            raise InputError(f"--only {name}: {file} has no such experiment. There are: {', '.join(known)}")
    if data is not None and not data.is_dir():
        raise InputError(f"--data: there is no folder {data}; give the one that holds the collections")
    counts = {"ok": 0, "off": 0, "not run": 0}
    for experiment in experiments:
        if only and experiment.name not in only:
            continue
        typer.echo(f"{experiment.name} ({experiment.date}, {experiment.machine}): {experiment.command}")
        lacking = lack(experiment, data, gpu="gpu" in experiment.needs and _has_gpu())
        if lacking or dry_run:
            counts["not run"] += len(experiment.figures)
            typer.echo(f"  not run: {lacking or '--dry-run'}")
            continue
        with interruptible(lambda: "run the same command again to go on"):
            failed = run_experiment(experiment, data, output / experiment.name)
        if failed:
            counts["off"] += len(experiment.figures)
            typer.echo(f"  off: {failed}")
            continue
        checked = check(experiment, output / experiment.name)
        counts["ok"] += sum(row.ok for row in checked)
        counts["off"] += sum(not row.ok for row in checked)
        _table(checked)
    typer.echo(", ".join(f"{count} {word}" for word, count in counts.items()))
    if counts["off"]:
        raise typer.Exit(1)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _table(checked: Sequence[Checked]) -> None:
    from mixlm_rerank.eval.tables import lined_up

    rows = [("figure", "printed", "expected", "found")]
    for row in checked:
        expected = f"{row.figure.value:.5g} ± {row.figure.tolerance:.5g}"
        rows.append((row.figure.label, row.figure.display, expected, "-" if row.found is None else f"{row.found:.5g}"))
    verdicts = ["", *("ok" if row.ok else f"off: {row.problem}" if row.problem else "off" for row in checked)]
    for line, verdict in zip(lined_up(rows).splitlines(), verdicts, strict=True):
        typer.echo(f"  {line}  {verdict}".rstrip())
