"""The model that comes with the package: small, whole, documented and trained."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.model.mixlm import DEFAULT
from mixlm_rerank.scoring import SharedPrefixScorer


@pytest.fixture(scope="module")
def default() -> MixLM:
    return MixLM.from_pretrained("default")


def test_it_is_part_of_the_package_and_small() -> None:
    inside = [path for path in DEFAULT.rglob("*") if path.is_file()]
    assert DEFAULT == Path(str(files("mixlm_rerank.model") / "default"))
    assert {path.suffix for path in inside} <= {".safetensors", ".json", ".txt", ".md"}
    assert sum(path.stat().st_size for path in inside) < 70e6


def test_its_card_says_which_model_it_is_and_what_it_may_be_used_for(default: MixLM) -> None:
    card = (DEFAULT / "README.md").read_text(encoding="utf-8")
    assert default.fingerprint in card
    assert "non-commercial research" in card and "Not recorded" not in card


def test_the_ranker_has_been_trained_and_serves_every_budget(default: MixLM) -> None:
    assert default.config.tokens == 8 and default.readout.score.weight.any()
    dog, bread = torch.from_numpy(
        default.encode(["Dogs bark at what they do not know.", "Bread is made of flour, water and salt."])
    )
    for k in (1, 2, 4, 8):
        scores = SharedPrefixScorer(default).score("why do dogs bark?", torch.stack([bread, dog])[:, -k:])
        assert scores[1] > scores[0] + 1
