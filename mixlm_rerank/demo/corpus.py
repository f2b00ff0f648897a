"""The demo's corpus is the documentation of the running Python's own standard library, so there is nothing to download.

Each documented public module, class, function, method and property is one document, named as a programmer writes it:
``bisect.insort``, ``pathlib.Path.glob``, ``str.removeprefix``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections import ChainMap
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from types import ModuleType
from typing import NamedTuple

from mixlm_rerank.types import Document

__all__ = ["stdlib_documents"]

MIN_WORDS = 2

# Left out with all their submodules: modules that act when imported (open a browser, print, or change how input() reads
# a line, as pdb and doctest do through readline since Python 3.13), programs and tests, modules that exist only if the
# platform has graphics, and modules that repeat one that is included.
SKIPPED = {
    *("antigravity", "doctest", "pdb", "readline", "rlcompleter", "this"),
    *("distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "turtledemo"),
    *("xxlimited", "xxlimited_35", "xxsubtype", "tkinter", "turtle"),
    *("genericpath", "nt", "ntpath", "nturl2path", "opcode", "posix", "posixpath", "pyexpat"),
    *("sre_compile", "sre_constants", "sre_parse"),
}
NO_SUBMODULES = {"encodings"}  # over a hundred codecs, with nothing to read
UNLISTED = ("os.path",)  # a public module without a file in its package
HOMES = sys.stdlib_module_names | {""}  # many builtins do not name their module


class _Rank(NamedTuple):
    """Sort key of the public names of an object, compared field by field: the smallest becomes the docid."""

    not_builtin: bool
    foreign: bool  # the object names another module as its own
    unlisted: bool  # the module has no ``__all__`` to vouch for it
    depth: int
    alias: bool
    length: int
    docid: str


class _Entry(NamedTuple):
    """An object under one of its public names."""

    rank: _Rank
    value: object


def stdlib_documents() -> list[Document]:
    """All documents, sorted by docid; the same on every call.

    >>> next(doc.text for doc in stdlib_documents() if doc.docid == "shutil.rmtree").splitlines()[0]
    'Recursively delete a directory tree.'
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecated module warns when imported, and the user did not import it
        modules = dict(_modules())
        exported = _one_name_each(entry for name, module in modules.items() for entry in _exports(name, module))

    classes = {entry.value: entry.rank for entry in exported if isinstance(entry.value, type)}
    members = [member for cls, rank in classes.items() for member in _members(cls, rank, classes)]

    texts = {name: _own_doc(module) for name, module in modules.items()}
    for entry in _one_name_each([*exported, *members]):
        texts[entry.rank.docid] = _own_doc(entry.value) or texts.get(entry.rank.docid, "")
    return [Document(docid, text, title=docid) for docid, text in sorted(texts.items()) if text]


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """The public modules that this platform can import."""
    names = [*UNLISTED, *sorted(sys.stdlib_module_names - SKIPPED)]
    while names:
        name = names.pop()
        last = name.rpartition(".")[2]
        if last.startswith("_") or last in {"test", "tests"}:
            continue
        try:
            module = importlib.import_module(name)
        except Exception:  # a module made for another platform may raise anything, not only ImportError
            continue
        yield name, module
        if name not in NO_SUBMODULES:
            names += [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")]


def _exports(name: str, module: ModuleType) -> Iterator[_Entry]:
    """Classes and functions that a module exports: ``__all__``, else those defined there or in private modules."""
    listed = getattr(module, "__all__", None)
    for attr in listed or list(vars(module)):
        value = _unbound(getattr(module, attr, None))
        if attr.startswith("_") or not (isinstance(value, type) or inspect.isroutine(value)):
            continue
        home = _home(value) or name
        foreign = _root(home) != _root(name)
        if listed or not foreign or home.startswith("_") or name == "builtins":
            docid = attr if name == "builtins" else f"{name}.{attr}"
            # The start of ``__name__`` is no alias: people write bisect.insort, not bisect.insort_right.
            alias = not f"{getattr(value, '__name__', attr)}_".startswith(f"{attr}_")
            rank = _Rank(name != "builtins", foreign, not listed, docid.count("."), alias, len(docid), docid)
            yield _Entry(rank, value)


def _members(cls: type, rank: _Rank, public: Container[object]) -> Iterator[_Entry]:
    """Methods and properties of a class, except those whose docstring comes from a public base class."""
    bases = [_namespace(base) for base in cls.__mro__[1:] if base in public]
    for attr, found in _namespace(cls).items():
        value = getattr(found, "__func__", found)  # the function inside a class method or a static method
        if attr.startswith("_") or not (inspect.isroutine(value) or isinstance(value, property | cached_property)):
            continue
        doc = _own_doc(value)
        if doc and all(doc != _own_doc(base.get(attr)) for base in bases):
            docid = f"{rank.docid}.{attr}"
            yield _Entry(rank._replace(depth=docid.count("."), length=len(docid), docid=docid), value)


def _namespace(cls: type) -> Mapping[str, object]:
    """Raw attributes of a class and its bases by name: getattr could run their code."""
    return ChainMap(*(dict(vars(base)) for base in cls.__mro__))


def _one_name_each(entries: Iterable[_Entry]) -> list[_Entry]:
    """One entry for each object, with its best name."""
    best: dict[int, _Entry] = {}
    for entry in entries:
        best[id(entry.value)] = min(entry, best.get(id(entry.value), entry), key=lambda known: known.rank)
    return list(best.values())


def _unbound(value: object) -> object:
    """The class's own method, if the function is a bound one, such as ``tarfile.open`` or ``random.choice``."""
    if inspect.ismethod(value):
        return value.__func__
    if inspect.isbuiltin(value) and not isinstance(value.__self__, ModuleType | type | None):
        return getattr(type(value.__self__), value.__name__, value)
    return value


def _home(value: object) -> str:
    """The module that an object names as its own; empty if it names none."""
    return getattr(value, "__module__", None) or ""


def _root(name: str) -> str:
    return name.partition(".")[0].lstrip("_")


def _own_doc(value: object) -> str:
    """The cleaned docstring; empty if it is too short, its type's, or the signature that a dataclass generates."""
    doc = getattr(value, "__doc__", None)
    if not isinstance(doc, str) or (not isinstance(value, type) and doc == type(value).__doc__):
        return ""
    if _home(value).partition(".")[0] not in HOMES:  # added by another package, as transformers does to logging
        return ""
    text = inspect.cleandoc(doc)
    if isinstance(value, type) and re.fullmatch(rf"{value.__name__}\(.*\)", text):
        return ""
    return text if len(text.split()) >= MIN_WORDS else ""
