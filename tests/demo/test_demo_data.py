"""The demo's corpus is the same on every call, and its questions are answered by documents that are in it."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from mixlm_rerank.demo.corpus import stdlib_documents
from mixlm_rerank.demo.run import Question, load_questions
from mixlm_rerank.types import Document

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


def shares_content_word(question: str, answer: str) -> bool:
    """Whether a word other than a stop word occurs in both, compared by its stem."""
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


@pytest.fixture(scope="module")
def corpus() -> dict[str, Document]:
    return {document.docid: document for document in stdlib_documents()}


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return load_questions()


def test_corpus_is_the_same_on_every_call(corpus: dict[str, Document]) -> None:
    again = stdlib_documents()
    assert again == list(corpus.values())
    assert all(left.docid < right.docid for left, right in pairwise(again))  # sorted, and no docid twice


def test_corpus_has_thousands_of_documents_with_text(corpus: dict[str, Document]) -> None:
    assert 4000 <= len(corpus) <= 9000
    assert all(document.title == docid and len(document.text.split()) > 1 for docid, document in corpus.items())


@pytest.mark.parametrize(
    ("docid", "text"),
    [
        ("bisect", "Bisection algorithms."),
        ("bisect.insort", "Insert item x in list a, and keep it sorted assuming a is sorted."),
        ("collections.OrderedDict", "Dictionary that remembers insertion order"),
        ("collections.OrderedDict.move_to_end", "Move an existing element to the end"),
        ("functools.partial", "with partial application"),
        ("io.StringIO", "Text I/O implementation using an in-memory buffer."),
        ("open", "Open file and return a stream."),
        ("os.path.join", "Join two"),
        ("pathlib.Path.glob", "Iterate over this subtree and yield all existing files"),
        ("pathlib.PurePath.suffix", "The final component's last suffix"),
        ("random.choice", "Choose a random element from a non-empty sequence."),
        ("shutil.rmtree", "Recursively delete a directory tree."),
        ("str.removeprefix", "Return a str with the given prefix string removed if present."),
        ("tarfile.open", "Open a tar archive for reading, writing or appending."),
        ("xml.etree.ElementTree.iterparse", "Incrementally parse XML document into ElementTree."),
    ],
)
def test_known_documents(corpus: dict[str, Document], docid: str, text: str) -> None:
    assert text in corpus[docid].text


@pytest.mark.parametrize(
    "docid",
    [
        "antigravity",
        "bisect.insort_right",  # another name of bisect.insort
        "collections.Counter.get",  # inherited from dict
        "io.open",  # another name of open
        "_io.StringIO",
        "os.DirEntry.__fspath__",
        "posixpath.join",
        "random.Random.choice",  # another name of random.choice
        "this",
    ],
)
def test_left_out(corpus: dict[str, Document], docid: str) -> None:
    assert docid not in corpus


def test_reading_the_corpus_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    filters, threads = list(warnings.filters), threading.active_count()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stdlib_documents()
    assert capfd.readouterr() == ("", "")
    assert not caught
    assert (warnings.filters, threading.active_count()) == (filters, threads)
    assert not {"antigravity", "this", "turtledemo"} & sys.modules.keys()


def test_what_another_package_adds_is_left_out(monkeypatch: pytest.MonkeyPatch, corpus: dict[str, Document]) -> None:
    def shout() -> None:
        """Log with severity SHOUT."""

    monkeypatch.setattr("logging.Logger.shout", shout, raising=False)
    assert [document.docid for document in stdlib_documents()] == list(corpus)


def test_questions_are_well_formed(questions: list[Question]) -> None:
    assert len(questions) >= 60
    assert [question.qid for question in questions] == [f"q{number:02d}" for number in range(1, len(questions) + 1)]
    assert max(Counter(question.text for question in questions).values()) == 1
    for question in questions:
        assert {2} <= set(question.relevant.values()) <= {1, 2}, question.qid


@pytest.mark.skipif(sys.platform == "win32", reason="a few related answers are POSIX functions")
def test_every_judged_document_exists(corpus: dict[str, Document], questions: list[Question]) -> None:
    assert not [(question.qid, docid) for question in questions for docid in question.relevant if docid not in corpus]


def test_half_of_the_questions_share_no_word_with_their_answers(
    corpus: dict[str, Document], questions: list[Question]
) -> None:
    def first_lines(question: Question) -> Iterator[str]:
        for docid, grade in question.relevant.items():
            if grade == 2:
                yield f"{docid} {corpus[docid].text.splitlines()[0]}"

    apart = [q.qid for q in questions if not any(shares_content_word(q.text, line) for line in first_lines(q))]
    assert len(apart) >= len(questions) / 2


@pytest.mark.parametrize(
    ("question", "answer", "shared"),
    [
        ("How do I copy files?", "Copying a file", True),
        ("How do I sort people?", "builtins.sorted", True),
        ("Line people up", "sorted", False),
        ("Which directories match?", "Matches a directory", True),
        ("an ordered thing", "collections.OrderedDict", True),
        ("close the matches", "difflib.get_close_matches", True),
        ("What is the time?", "what is the", False),
        ("How do I delete a folder?", "shutil.rmtree Recursively delete a directory tree.", True),
        ("How do I wipe a folder?", "shutil.rmtree Recursively delete a directory tree.", False),
    ],
)
def test_shares_content_word(question: str, answer: str, shared: bool) -> None:
    assert shares_content_word(question, answer) is shared
