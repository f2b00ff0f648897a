"""A recipe: everything that a training run depends on, as one YAML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mixlm_rerank.errors import InputError, install_command, optional_import
from mixlm_rerank.systems.members import DEFAULT_WEIGHTS, check_members
from mixlm_rerank.training.embeddings import EmbeddingsPart
from mixlm_rerank.training.mix import Draw
from mixlm_rerank.training.stage1 import ReasoningPart
from mixlm_rerank.training.stage2 import CrossEncoderPart
from mixlm_rerank.training.stage3 import JointOptions
from mixlm_rerank.training.stage_trainer import STRICT

__all__ = ["CollectionPart", "ModelPart", "Places", "RankerPart", "Recipe", "TeacherPart", "load_recipe"]
__all__ += ["merged", "read_yaml", "recipe_of"]

RENAMED = {
    "run": "first_stages: ['run:FILE']",
    **dict.fromkeys(("hybrid", "encoder", "cross_encoder"), "members"),
    "distil": "distill",
}
Kind = TypeVar("Kind")
Places = Mapping[str, str | Callable[[], str]]  # what stands for a placeholder; a function is called on first use
UNFILLED = {
    "data": "say where the collections are (--data FOLDER)",
    "run": "say where the run is (--output FOLDER)",
    "minilm": f"install the checkpoint ({install_command('train')})",
}


@dataclass(frozen=True, config=STRICT)
class CollectionPart:
    """A collection to train on, to choose by, or never to see."""

    source: str  # a BEIR folder, ``irds:DATASET`` ... (see :func:`open_collection`)
    split: str = "train"  # of the judgments
    weight: float = Field(default=1.0, gt=0)  # share of the training batches, relative to other collections
    queries: int | None = Field(default=None, ge=1)  # at most this many, drawn at random; None: all
    # Candidates come from these, the best of each in turn; words of ``eval report --first-stage`` (bm25, run:FILE,
    # dense:NAME ...). A development set has one.
    first_stages: list[str] = Field(default_factory=lambda: ["bm25"], min_length=1)
    # Log-odds that a label of 1 adds to the teacher's score; None: as in :class:`TeacherPart`. Use 0 if
    # labels depend more on how documents were gathered than on their content.
    labels: float | None = None
    # Candidates come only from documents that are judged for some query of the split. For collections in which judged
    # documents differ from the others in form.
    judged_only: bool = False


@dataclass(frozen=True, config=STRICT)
class ModelPart:
    """The start of a run: a saved MixLM (``start``), or checkpoints and ``options`` of :meth:`MixLM.from_backbones`."""

    start: str | None = None
    item_encoder: str | None = None
    ranker: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class TeacherPart:
    """The teacher of stage III: a sum of log-odds."""

    # Rankers, each named by a word, and their weights: see :mod:`mixlm_rerank.systems.members`. Without a name,
    # ``max-sim`` and ``bi-encoder`` use the item encoder as it is at the start.
    members: dict[str, float] = field(default_factory=DEFAULT_WEIGHTS.copy)
    labels: float = 3.0  # log-odds added for a label of 1


@dataclass(frozen=True, config=STRICT)
class RankerPart:
    """The end of stage III: only the ranker is trained, on fixed embedding tokens, which are computed once. A step
    costs a fraction of a joint step.
    """

    steps: int = Field(default=2000, ge=1)  # groups of ``queries`` queries with ``candidates`` documents each
    queries: int = Field(default=10, ge=1)
    candidates: int = Field(default=30, ge=2)
    learning_rates: tuple[float, float] = (2e-5, 1e-3)  # of ranker and readout
    save_every: int = Field(default=500, ge=1)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """The file that ``mixlm-rerank train`` reads. All but stage III is optional; results are under ``{run}``."""

    collections: list[CollectionPart]  # to train on
    model: ModelPart
    development: list[CollectionPart] = field(default_factory=list)  # to choose checkpoints by; never a test set
    never: list[CollectionPart] = field(default_factory=list)  # their queries are neither trained on nor chosen by
    embeddings: EmbeddingsPart | None = None
    reasoning: ReasoningPart | None = None  # stage I
    cross_encoder: CrossEncoderPart | None = None  # stage II
    teacher: TeacherPart = field(default_factory=TeacherPart)
    joint: JointOptions = field(default_factory=JointOptions)
    ranker: RankerPart | None = None  # optional, after the joint training
    # Joint training of item encoder and ranker, on groups of ``queries`` queries with ``candidates`` documents each.
    # 0: the run ends with the cross-encoder of stage II.
    steps: int = Field(default=2000, ge=0)
    queries: int = Field(default=10, ge=1)
    candidates: int = Field(default=4, ge=2)
    depth: int = Field(default=100, ge=2)  # candidates per query, from which documents are drawn
    # ``stratified``: the teacher's order is divided into as many sections as candidates are needed, and one is drawn
    # from each; the teacher then reads all ``depth``.
    draw: Draw = "random"
    half: bool = False  # the model that comes out is saved in float16
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.steps and self.cross_encoder is None:
            raise ValueError("0 steps and no cross_encoder: there is nothing to train")
        for part in self.development:
            if len(part.first_stages) > 1:
                raise ValueError(f"{part.source}: a development set has one first stage, not {part.first_stages}")
        if self.ranker is not None:
            self.joint.ranker_alone(*self.ranker.learning_rates)  # raises if no loss is left for the ranker
        if self.cross_encoder is not None:
            self._check_taught(self.cross_encoder.members, self.cross_encoder.labels)
        if self.steps and any(phase.teacher_is_asked for phase in self.joint.phases):
            self._check_taught(self.teacher.members, self.teacher.labels)

    def _check_taught(self, members: Mapping[str, float], labels: float) -> None:
        """Raises ValueError for a collection with neither members nor labels: all targets would be equal."""
        check_members(members, nameless=True)
        teacher = any(members.values())
        for part in self.collections:
            if not teacher and not (labels if part.labels is None else part.labels):
                raise ValueError(
                    f"{part.source}: nothing says which candidates are better, neither a teacher nor labels: give the "
                    "teacher a weight, let labels count, or leave the collection out"
                )


def load_recipe(path: str | Path, places: Places | None = None, kind: type[Kind] = Recipe) -> Kind:  # type: ignore[assignment]
    """Read a recipe of some kind; placeholders like ``{data}`` in its strings are filled in from ``places``.

    Raises InputError for a file that is missing, not YAML, or not a recipe, naming the field.
    """
    return recipe_of(read_yaml(Path(path)), places or {}, str(path), kind)


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """Read a YAML file. ``extends: OTHER.yaml``, in the same folder, supplies every value that this file does not set,
    in nested parts, too. Lists are replaced as a whole. ``extends: distill/cut`` is a recipe of the package.

    ``above``: files that extend this one.

    Raises InputError for a file that is missing, not YAML, or extends itself, directly or not.
    """
    with optional_import("recipes need PyYAML", "train"):
        import yaml
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no recipe at {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if isinstance(values, dict) and "extends" in values:
        name = str(values.pop("extends"))
        other = path.parent / name
        if other.suffix not in (".yaml", ".yml"):
            other = Path(str(files("mixlm_rerank.training"))) / "recipes" / f"{name}.yaml"
        chain = (*above, path.resolve())
        if other.resolve() in chain:
            raise InputError(f"{path} extends itself")
        values = merged(read_yaml(other, chain), values)
    return values


def merged(base: Any, own: Any) -> Any:
    """``base``, overridden by the values of ``own``, recursively."""
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    return base | {key: merged(base[key], value) if key in base else value for key, value in own.items()}


def recipe_of(values: Any, places: Places | None, name: str, kind: type[Kind] = Recipe) -> Kind:  # type: ignore[assignment]
    """Make a recipe of a file's ``values``, with ``places`` filled in (None: left as they are).

    Raises InputError, with the recipe's ``name`` and the field, if it is invalid, or for an unknown place.
    """
    try:
        return TypeAdapter(kind).validate_python(values if places is None else _filled(values, places, name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        since = RENAMED.get(str(first["loc"][-1])) if first["type"].startswith("unexpected") else None
        now = f" (since version 0.2 it is {since})" if since else ""
        raise InputError(f"{name} is not a recipe: {where}: {first['msg']}{now}") from None


def _filled(value: Any, places: Places, name: str) -> Any:
    if isinstance(value, dict):
        return {_filled(key, places, name): _filled(inner, places, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, places, name) for inner in value]
    if not isinstance(value, str):
        return value
    for key, place in places.items():
        if f"{{{key}}}" in value:
            value = value.replace(f"{{{key}}}", place if isinstance(place, str) else place())
    for key, mend in UNFILLED.items():
        if f"{{{key}}}" in value:
            raise InputError(f"{name} asks for {value!r}: {mend}")
    return value
