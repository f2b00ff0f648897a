"""The demo's questions were judged by hand from the docstrings alone, so they favour no search system.

Grade 2 answers the question, grade 1 is related or answers a part. Most questions share no word that carries meaning
with what answers them: :func:`shares_content_word` says which, by a rule that anyone can read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["Question", "load_questions", "shares_content_word"]

STOP_WORDS = frozenset(
    """
    about above after again against all am an and any are as at be because been before being below between both but by
    can cannot could did do does doing done down during each few for from further had has have having he her here hers
    him his how if in into is it its itself just may me might mine more most must my myself no nor not now of off on
    once only or other our ours out over own same shall she should so some such than that the their theirs them then
    there these they this those through to too under until up us very was we were what when where whether which while
    who whom whose why will with would yet you your yours
    """.split()
)


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


def shares_content_word(question: str, answer: str) -> bool:
    """Whether a word other than a stop word occurs in both, compared by its stem.

    >>> shares_content_word("How do I sort people?", "builtins.sorted"), shares_content_word("Line people up", "sorted")
    (True, False)
    """
    return not _stems(question).isdisjoint(_stems(answer))


def _stems(text: str) -> set[str]:
    """The stems of the words of a text, an identifier's parts among them: ``OrderedDict`` is also ordered and dict."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", text)
    words = set(re.findall(r"[^\W_]{2,}", f"{text} {parts}".lower()))
    return {_stem(word) for word in words - STOP_WORDS}


def _stem(word: str) -> str:
    """A word less its plural, -ing or -ed: files and filing are ``fil``, copies and copied are ``copy``."""
    stem = re.sub(r"(?<=\w{2})(?:s|es)$", "", re.sub(r"(?<=\w{2})ie[sd]$", "y", word))
    stem = re.sub(r"(?<=\w{2})(?:ing|ed|e)$", "", stem)
    return re.sub(r"([^aeiou])\1$", r"\1", stem)  # running is run, and passes is pas as pass is
