"""Systems by a word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.systems import specs
from mixlm_rerank.systems.combined import Interpolated, Shallow
from mixlm_rerank.systems.mixlm import Cascade, Cosine, FullTextMode, TokenReranker
from mixlm_rerank.systems.protocol import System
from mixlm_rerank.systems.sentence_transformers import BiEncoder, CrossEncoder
from mixlm_rerank.systems.specs import SYSTEMS, name_of, unique

OWN = {
    "mixlm": (TokenReranker, "MixLM k=4"),
    "mixlm:1": (TokenReranker, "MixLM k=1"),
    "mixlm:2@int8": (TokenReranker, "MixLM k=2, int8"),
    "mixlm@int8": (TokenReranker, "MixLM k=4, int8"),
    "verify:20": (Cascade, "MixLM k=4, best 20 in full"),
    "full-text": (FullTextMode, "full-text mode"),
    "cosine": (Cosine, "cosine"),
    "mixlm:2+0.25": (Interpolated, "MixLM k=2 + 0.25 first stage"),
    "cosine+1e-1": (Interpolated, "cosine + 0.1 first stage"),
    "cosine+rrf": (Interpolated, "cosine + rrf first stage"),
    "full-text+0": (Interpolated, "full-text mode + 0 first stage"),
    "full-text+top20": (Shallow, "full-text mode, first stage's best 20"),
    "cosine+0.5+top3": (Shallow, "cosine + 0.5 first stage, first stage's best 3"),
}


@pytest.fixture
def model(tiny: Callable[..., MixLM]) -> Callable[[], MixLM]:
    return lambda: tiny("bert")


def make_systems(words: str, models: dict[str, Callable[[], MixLM]]) -> list[System]:
    return unique(specs.make_systems(words, models))


def never() -> MixLM:
    raise AssertionError("a model was loaded")


@pytest.mark.parametrize("word", OWN)
def test_a_word_makes_a_system_of_the_model(model: Callable[[], MixLM], word: str) -> None:
    (system,) = make_systems(word, {"default": model})
    assert (type(system), system.name, system.seed_group) == (*OWN[word], None)


def test_words_are_separated_by_commas_and_keep_their_order(model: Callable[[], MixLM]) -> None:
    systems = make_systems(f" {' , '.join(OWN)}, ", {"default": model})
    assert [system.name for system in systems] == [name for _, name in OWN.values()]


@pytest.mark.parametrize("word", OWN)
def test_several_models_are_seeds_of_one_recipe(model: Callable[[], MixLM], word: str) -> None:
    name = OWN[word][1]
    systems = make_systems(word, {"a": model, "b": model})
    own, below, _ = re.split(r"((?: \+ |, first stage).*|$)", name, maxsplit=1)
    assert [system.name for system in systems] == [f"{own} [{seed}]{below}" for seed in "ab"]
    assert {system.seed_group for system in systems} == {name}


def test_peers_come_by_folder_and_need_no_mixlm(
    cross_encoder: Callable[..., Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    judge, encoder = cross_encoder(), checkpoint("bert")
    at = tmp_path / "judge@2"
    at.symlink_to(judge)
    deep = tmp_path / "judge+top3"
    deep.symlink_to(judge)
    assert [system.name for system in make_systems(f"cross-encoder:{deep}", {})] == ["judge+top3"]
    words = [f"cross-encoder:{judge}", f"cross-encoder:{judge}@16", f"cross-encoder:{judge}@16+0.5"]
    words += [f"bi-encoder:{encoder}", f"bi-encoder:{encoder}+.5", f"cross-encoder:{at}", f"cross-encoder:{at}@8"]
    systems = make_systems(",".join(words), {"a": never, "b": never})
    assert [system.name for system in systems] == [
        "judge-1",
        "judge-1, 16 tokens",
        "judge-1, 16 tokens + 0.5 first stage",
        encoder.name,
        f"{encoder.name} + 0.5 first stage",
        "judge@2",
        "judge@2, 8 tokens",
    ]
    assert [type(system) for system in systems[:4]] == [CrossEncoder, CrossEncoder, Interpolated, BiEncoder]
    assert {system.seed_group for system in systems} == {None}


def test_systems_that_keep_all_states(
    cross_encoder: Callable[..., Path], checkpoint: Callable[..., Path], model: Callable[[], MixLM]
) -> None:
    judge, encoder = cross_encoder(), checkpoint("bert")
    cut = MixLM.from_cross_encoder(judge, tokens=2, fixed_documents=True)
    systems = make_systems(f"prettr:{judge}@2,mice:{judge},all-states", {"default": lambda: cut})
    names = ["judge-1 as PreTTR m=2", "judge-1 as MICE m=1", "all states (MICE m=1)"]
    assert [system.name for system in systems] == names
    assert len({system.description for system in systems}) == 3
    with pytest.raises(InputError, match="no mix layer, .* cut out of a cross-encoder"):
        make_systems("all-states", {"default": model})
    with pytest.raises(InputError, match="must be below 3, the number of layers of .*, not 3"):
        make_systems(f"prettr:{judge}@3", {})
    with pytest.raises(InputError, match="not trained for late interaction: .* take max-sim:"):
        make_systems(f"multi-vector:{encoder}", {})
    with pytest.raises(InputError, match="cannot load the model '/nowhere'"):
        make_systems("multi-vector:/nowhere", {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "no systems are named"),
        (" , ", "no systems are named"),
        ("bm25", "no such system: 'bm25'"),
        ("MixLM", "no such system: 'MixLM'"),
        ("verify", "no such system: 'verify'"),
        ("verify:", "no such system: 'verify:'"),
        ("verify:3@", "'verify:3@' names no cross-encoder after its @"),
        ("verify:few@judge", "'verify:few@judge' needs a whole number after its colon"),
        ("cross-encoder", "no such system: 'cross-encoder'"),
        ("bi-encoder:", "no such system: 'bi-encoder:'"),
        ("cosine:2", "no such system: 'cosine:2'"),
        ("full-text:", "no such system: 'full-text:'"),
        ("mixlm+", "no such system: 'mixlm+'"),
        ("mixlm+many", "no such system: 'mixlm+many'"),
        ("mixlm+topten", "no such system: 'mixlm+topten'"),
        ("+0.2", "no such system: ''"),
        ("prettr", "no such system: 'prettr'"),
        ("mice:", "no such system: 'mice:'"),
        ("all-states:2", "no such system: 'all-states:2'"),
        ("mixlm:", "'mixlm:' needs a whole number"),
        ("mixlm:@int8", "'mixlm:@int8' needs a whole number"),
        ("mixlm:four", "'mixlm:four' needs a whole number"),
        ("mixlm:-1", "'mixlm:-1' needs a whole number"),
        ("mixlm:2.5", "'mixlm:2.5' needs a whole number"),
        ("verify:ten", "'verify:ten' needs a whole number"),
        ("verify:3+0.2", "'verify:3+0.2': what is read in full cannot be mixed afterwards"),
        ("mixlm,cosine,mixml", "no such system: 'mixml'"),  # the others are not loaded in vain
    ],
)
def test_another_word_is_told_before_a_model_is_loaded(words: str, told: str) -> None:
    with pytest.raises(InputError) as raised:
        make_systems(words, {"default": never})
    assert told in str(raised.value)
    assert told.startswith("'") or SYSTEMS in str(raised.value)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("mixlm:0", "between 1 and 4"),
        ("mixlm:5", "between 1 and 4"),
        ("verify:0", "at least 1"),
        ("cosine+1.5", "between 0 and 1, not 1.5"),
        ("cosine+-0.1", "between 0 and 1, not -0.1"),
        ("cosine+nan", "between 0 and 1, not nan"),
        ("cosine+top0", "the first stage's best 0: give at least 1"),
    ],
)
def test_an_impossible_value_is_told(model: Callable[[], MixLM], word: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_systems(word, {"default": model})


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("mixml:4", "mixlm"),
        ("MixLM", "mixlm"),
        ("cosin", "cosine"),
        ("crossencoder:x", "cross-encoder"),
        ("fulltext", "full-text"),
    ],
)
def test_a_typo_is_told_the_word_that_is_nearest(word: str, nearest: str) -> None:
    with pytest.raises(InputError, match=rf"no such system: '{word}' \(did you mean '{nearest}'\?\)"):
        make_systems(f"cosine,{word}", {"default": never})


def test_a_system_goes_by_its_name_and_by_its_word(model: Callable[[], MixLM]) -> None:
    named = specs.make_systems("mixlm,mixlm:4, full-text", {"default": model})
    assert [system.name for system in unique(named)] == ["MixLM k=4", "full-text mode"]
    asked = ("mixlm", "mixlm:4", "MixLM k=4", "full-text", "first stage")
    assert [name_of(word, named) for word in asked] == ["MixLM k=4"] * 3 + ["full-text mode", "first stage"]
    with pytest.raises(
        InputError, match=r"'cosine' stands for several systems: name one of cosine \[a\], cosine \[b\]"
    ):
        name_of("cosine", specs.make_systems("cosine", {"a": model, "b": model}))
