"""A recipe: everything that a training run depends on, as one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mixlm_rerank.errors import InputError, install_command, optional_import
from mixlm_rerank.systems.members import DEFAULT_WEIGHTS, check_members
from mixlm_rerank.training.mix import Draw
from mixlm_rerank.training.stage1 import ReasoningPart
from mixlm_rerank.training.stage2 import CrossEncoderPart
from mixlm_rerank.training.stage3 import JointOptions
from mixlm_rerank.training.stage_trainer import STRICT

__all__ = ["CollectionPart", "ModelPart", "RankerPart", "Recipe", "TeacherPart", "load_recipe", "merged"]
__all__ += ["read_yaml", "recipe_of"]

RENAMED = {
    "run": "first_stages: ['run:FILE']",
    **dict.fromkeys(("hybrid", "encoder", "cross_encoder"), "members"),
    "distil": "distill",
}
Kind = TypeVar("Kind")
UNFILLED = {
    "data": "say where the collections are (--data FOLDER)",
    "run": "say where the run is (--output FOLDER)",
    "minilm": f"install the checkpoint ({install_command('train')})",
}


@dataclass(frozen=True, config=STRICT)
class CollectionPart:
    """A collection to train on, to choose by, or never to see."""

    source: str  # a BEIR folder, ``irds:DATASET`` ... (see :func:`open_collection`)
    split: str = "train"  # of its judgments
    weight: float = Field(default=1.0, gt=0)  # share of the training batches, against the other collections' weights
    queries: int | None = Field(default=None, ge=1)  # at most so many, drawn at random; None: all
    # Where candidates come from, the best of each in turn; words of ``eval report --first-stage`` (bm25, run:FILE,
    # dense:NAME ...). One for a development set.
    first_stages: list[str] = Field(default_factory=lambda: ["bm25"], min_length=1)
    # Log-odds that a label of 1 adds to the teacher's score; None: as :class:`TeacherPart` says. 0 where labels tell
    # more of how documents were gathered than of what they say.
    labels: float | None = None
    # Candidates come from the documents that some query of the split has judged: where these can be told from the
    # others by their form.
    judged_only: bool = False


@dataclass(frozen=True, config=STRICT)
class ModelPart:
    """Where a run starts: a saved MixLM (``start``), or two checkpoints and what :meth:`MixLM.from_backbones` takes."""

    start: str | None = None
    item_encoder: str | None = None
    ranker: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class TeacherPart:
    """The teacher of stage III: a sum of log-odds."""

    # Rankers, each by a word, and what their scores count: see :mod:`mixlm_rerank.systems.members`. Without a name
    # ``max-sim`` and ``bi-encoder`` are of the item encoder as it is at the start.
    members: dict[str, float] = field(default_factory=DEFAULT_WEIGHTS.copy)
    labels: float = 3.0  # log-odds added for a label of 1


@dataclass(frozen=True, config=STRICT)
class RankerPart:
    """The end of stage III: the ranker alone, over embedding tokens that no longer change and are computed once. A step
    costs a fraction of a joint one.
    """

    steps: int = Field(default=2000, ge=1)  # groups of ``queries`` queries with ``candidates`` documents each
    queries: int = Field(default=10, ge=1)
    candidates: int = Field(default=30, ge=2)
    learning_rates: tuple[float, float] = (2e-5, 1e-3)  # of ranker and readout
    save_every: int = Field(default=500, ge=1)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """What ``mixlm-rerank train`` reads. Stages I and II come where they are wanted, with results under ``{run}``."""

    collections: list[CollectionPart]  # to train on
    model: ModelPart
    development: list[CollectionPart] = field(default_factory=list)  # to choose by, never of a test
    never: list[CollectionPart] = field(default_factory=list)  # whose queries are neither trained on nor chosen by
    reasoning: ReasoningPart | None = None  # stage I
    cross_encoder: CrossEncoderPart | None = None  # stage II
    teacher: TeacherPart = field(default_factory=TeacherPart)
    joint: JointOptions = field(default_factory=JointOptions)
    ranker: RankerPart | None = None  # what follows the joint training, where it is wanted
    # Of item encoder and ranker together, on groups of ``queries`` queries with ``candidates`` documents each. 0: the
    # run ends with the cross-encoder of stage II.
    steps: int = Field(default=2000, ge=0)
    queries: int = Field(default=10, ge=1)
    candidates: int = Field(default=4, ge=2)
    depth: int = Field(default=100, ge=2)  # candidates of a query that documents are drawn from
    # ``stratified``: a query's candidates are as many sections of the teacher's order, and one is drawn of each; the
    # teacher then reads all ``depth``.
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
            self.joint.ranker_alone(*self.ranker.learning_rates)  # refuses what leaves it nothing to learn
        if self.cross_encoder is not None:
            self._check_taught(self.cross_encoder.members, self.cross_encoder.labels)
        if self.steps and any(phase.teacher_is_asked for phase in self.joint.phases):
            self._check_taught(self.teacher.members, self.teacher.labels)

    def _check_taught(self, members: Mapping[str, float], labels: float) -> None:
        """Without either, all candidates would be taught to be alike."""
        check_members(members, nameless=True)
        teacher = any(members.values())
        for part in self.collections:
            if not teacher and not (labels if part.labels is None else part.labels):
                raise ValueError(
                    f"{part.source}: nothing says which candidates are better, neither a teacher nor labels: give the "
                    "teacher a weight, let labels count, or leave the collection out"
                )


def load_recipe(path: str | Path, places: Mapping[str, str] | None = None, kind: type[Kind] = Recipe) -> Kind:  # type: ignore[assignment]
    """Read a recipe of some kind; ``{data}`` and the like in its strings are filled in from ``places``.

    Raises InputError for a file that is missing, not YAML, or not a recipe, naming the field.
    """
    return recipe_of(read_yaml(Path(path)), places or {}, str(path), kind)


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """A YAML file; ``extends: OTHER.yaml`` takes from that file, beside it, everything that this one does not say, of
    its parts, too. A list is taken or said as a whole.

    ``above``: files that extend this one.

    Raises InputError for a file that is missing, not YAML, or extends itself in the end.
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
        other = path.parent / str(values.pop("extends"))
        chain = (*above, path.resolve())
        if other.resolve() in chain:
            raise InputError(f"{path} extends itself")
        values = merged(read_yaml(other, chain), values)
    return values


def merged(base: Any, own: Any) -> Any:
    """What ``own`` says, of its parts, too, and else what ``base`` says."""
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    return base | {key: merged(base[key], value) if key in base else value for key, value in own.items()}


def recipe_of(values: Any, places: Mapping[str, str] | None, name: str, kind: type[Kind] = Recipe) -> Kind:  # type: ignore[assignment]
    """What a file's ``values`` say, with ``places`` filled in (None: as they stand).

    Raises InputError, with the recipe's ``name`` and the field, if that is none, or for a place that is not known.
    """
    try:
        return TypeAdapter(kind).validate_python(values if places is None else _filled(values, places, name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        since = RENAMED.get(str(first["loc"][-1])) if first["type"].startswith("unexpected") else None
        now = f" (since version 0.2 it is {since})" if since else ""
        raise InputError(f"{name} is not a recipe: {where}: {first['msg']}{now}") from None


def _filled(value: Any, places: Mapping[str, str], name: str) -> Any:
    if isinstance(value, dict):
        return {_filled(key, places, name): _filled(inner, places, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, places, name) for inner in value]
    if not isinstance(value, str):
        return value
    for key, place in places.items():
        value = value.replace(f"{{{key}}}", place)
    for key, mend in UNFILLED.items():
        if f"{{{key}}}" in value:
            raise InputError(f"{name} asks for {value!r}: {mend}")
    return value
