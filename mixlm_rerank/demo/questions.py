"""The demo's questions were judged by hand from the docstrings alone, so they favour no search system.

Grade 2 answers the question, grade 1 is related or answers a part. Half of the questions or more share no word that
carries meaning with what answers them, by a rule that tests/demo spells out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Question", "load_questions"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its judged answers: docid to grade, where a docid left out has grade 0."""

    qid: str
    text: str
    relevant: dict[str, int]


def load_questions() -> list[Question]:
    """The questions in the order of their ids.

    >>> question = load_questions()[0]
    >>> question.qid, question.relevant["shutil.rmtree"]
    ('q01', 2)
    """
    lines = files(__package__).joinpath("questions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Question(row["_id"], row["text"], row["relevant"]) for row in rows]
