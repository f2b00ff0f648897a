"""Results of an evaluation as one results.json: written by the harness, shown by the report, compared between two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mixlm_rerank.data.lines import writing
from mixlm_rerank.data.measures import Fidelity
from mixlm_rerank.errors import InputError
from mixlm_rerank.eval.significance import Comparison
from mixlm_rerank.systems.protocol import Efficiency, Kind

__all__ = ["CollectionResult", "Evaluation", "Example", "Shown", "Slice", "SystemResult", "load_results"]
__all__ += ["save_results"]


@dataclass(frozen=True)
class Slice:
    """The main measure over one kind of queries, such as ``of`` "query length", ``label`` "1 to 5 words"."""

    of: str
    label: str
    queries: int
    value: float


@dataclass(frozen=True)
class SystemResult:
    """One system on one collection."""

    name: str  # short and unique, for tables: "MixLM k=4"
    description: str  # exact configuration: model, fingerprint, lengths, weights
    measures: dict[str, float]  # means over all judged queries
    per_query: dict[str, dict[str, float]]  # measure -> qid -> value
    efficiency: Efficiency | None  # None where there is nothing to time (first stage, oracle)
    comparison: Comparison | None  # against the baseline, on the main measure; None for the baseline itself
    fidelity: Fidelity | None  # to the teacher; None for the teacher itself, or without one
    tokens: int | None  # the token budget of a MixLM
    seed_group: str | None  # systems that differ only in their seed share this name
    depth_curve: dict[int, float]  # number of first-stage candidates reranked -> main measure
    slices: list[Slice]
    # "other": derived from the collection's first stage and teacher, from ``tokens`` and from the name "oracle"
    kind: Kind = "other"


@dataclass(frozen=True)
class Shown:
    """A document in an example."""

    docid: str
    grade: int | None  # its judgment; None for unjudged
    text: str


@dataclass(frozen=True)
class Example:
    """A query on which ``system`` wins or loses against the baseline, with the first documents of both."""

    qid: str
    query: str
    system: str
    value: float
    baseline_value: float
    documents: list[Shown]
    baseline_documents: list[Shown]


@dataclass(frozen=True)
class CollectionResult:
    """All systems on one collection. ``documents`` is None if the corpus was not read (run files only)."""

    name: str
    documents: int | None
    queries: int
    first_stage: str
    depth: int
    baseline: str
    teacher: str | None
    systems: list[SystemResult]
    examples: list[Example]


@dataclass(frozen=True)
class Evaluation:
    """A whole evaluation."""

    created: str  # ISO 8601
    command: str
    version: str
    machine: dict[str, str]  # what it ran on, name -> value ("processor", "cores", "memory", "torch" ...)
    measures: list[str]  # the first is the main one; every system has all of them
    collections: list[CollectionResult]


_ADAPTER = TypeAdapter(Evaluation)


def save_results(evaluation: Evaluation, path: str | Path) -> None:
    """Write results.json. Raises InputError if it cannot be written."""
    with writing(path) as file:
        file.write(_ADAPTER.dump_json(evaluation, indent=1).decode("utf-8") + "\n")


def load_results(path: str | Path) -> Evaluation:
    """Read a results.json file, or the one in a report's folder. Raises InputError for anything else."""
    path = Path(path)
    if path.is_dir():
        path /= "results.json"
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no results at {path} (mixlm-rerank eval report writes them)") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path} does not hold results of an evaluation: {where}: {first['msg']}") from None
