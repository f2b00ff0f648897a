"""Systems that other packages register: a real entry point, in a distribution that is on the path."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixlm_rerank.errors import InputError
from mixlm_rerank.eval import evaluate
from mixlm_rerank.eval.harness import evaluate_collection
from mixlm_rerank.systems.specs import make_systems, unique
from mixlm_rerank.systems.workplace import Workplace

DOCS = Path(__file__).parents[2] / "docs"
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install(entry_points, code)``: a distribution with these lines and the module ``own_module``."""

    def installed(entries: str, code: str) -> None:
        site = tmp_path / "site"
        info = site / "own_system-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-system\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mixlm_rerank.systems]\n{entries}\n")
        (site / "own_module.py").write_text(code)
        shutil.copy(DOCS / "examples" / "own_system.py", site)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(__import__("sys").modules, "own_module", raising=False)

    return installed


def test_the_documented_example_ranks_beside_the_others(install: Install, work: Workplace, stage: Any) -> None:
    """By its own count of words, with the entry point as the page has it."""
    (line,) = re.findall(r'^overlap = "(.+)"$', (DOCS / "evaluation.md").read_text(encoding="utf-8"), re.MULTILINE)
    install(f"overlap = {line}", "")
    systems = unique(make_systems("overlap:3,overlap:3+0.5", {}))
    assert [system.description.split(";")[0] for system in systems] == ["word overlap, version 1, 3 words"] * 2
    found = evaluate_collection(work, stage, systems, measures=["AP"])
    own = next(system for system in found.systems if system.name == "word overlap")
    run = {}
    for qid, hits in stage.retrieve(work.collection, 100).items():
        texts = {document.docid: document.content for document in work.collection.documents("a test")}
        words = set(work.collection.queries[qid].lower().split())
        counts = [len(words & set(texts[hit.docid].lower().split()[:3])) for hit in hits]
        order = sorted(range(len(hits)), key=lambda place: -counts[place])
        run[qid] = [type(hits[0])(hits[place].docid, -float(rank)) for rank, place in enumerate(order)]
    assert own.measures["AP"] == pytest.approx(evaluate(work.collection.qrels, run, ["AP"])["AP"])


WHOLE = "name = description = 'mine'; kind = 'other'; tokens = seed_group = None; pointwise = True"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise RuntimeError('no licence')", r"the system 'mine' \(own_module:Mine\) fails: RuntimeError: no licence"),
        ("import no_such_library", "fails: ModuleNotFoundError: No module named 'no_such_library'"),
        ("Other = 1", "fails: AttributeError"),
        ("class Mine:\n    pass", "fails: TypeError"),
        (
            "def Mine(value): return value",
            "lacks name, description, kind, tokens, pointwise, seed_group, prepare, rank",
        ),
        (
            f"class Mine:\n    {WHOLE.replace('other', 'magic')}\n    prepare = rank = print\n"
            "    def __init__(self, value): pass",
            "is of kind 'magic'; there are first stage, bi-encoder",
        ),
    ],
)
def test_a_package_that_fails_is_named(install: Install, code: str, told: str) -> None:
    install("mine = own_module:Mine", code)
    with pytest.raises(InputError, match=told):
        make_systems("mine:1", {})


def test_registered_words_are_among_those_that_there_are(install: Install) -> None:
    install("overlap = own_system:WordOverlap", "")
    with pytest.raises(InputError, match=r"no such system: 'overlop' \(did you mean 'overlap'\?\).* and overlap"):
        make_systems("overlop", {})


def test_a_ranking_without_some_candidates_is_refused(install: Install, work: Workplace, stage: Any) -> None:
    code = f"""
from own_system import WordOverlap
class Mine(WordOverlap):
    {WHOLE}
    def rank(self, query, candidates):
        return super().rank(query, candidates)[1:]
"""
    install("mine = own_module:Mine", code)
    with pytest.raises(InputError, match="mine does not rank the candidates of query 'q1', all of them and no others"):
        evaluate_collection(work, stage, unique(make_systems("mine", {})), measures=["AP"])
