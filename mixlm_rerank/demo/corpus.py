"""The demo's corpus is the documentation of the running Python's own standard library, so there is nothing to download.

Each documented public module, class, function, method and property is one document, under the name by which a
programmer reaches it: ``bisect.insort``, ``pathlib.Path.glob``, ``str.removeprefix``.
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

# Left out with all their submodules: some act when imported (open a browser, print, or change how input() reads a line,
# as pdb and doctest do through readline since Python 3.13), some are programs or tests rather than a library, some come
# and go with the platform's graphics, and some are another face of a module that is in.
SKIPPED = {
    *("antigravity", "doctest", "pdb", "readline", "rlcompleter", "this"),
    *("distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "turtledemo"),
    *("xxlimited", "xxlimited_35", "xxsubtype", "tkinter", "turtle"),
    *("genericpath", "nt", "ntpath", "nturl2path", "opcode", "posix", "posixpath", "pyexpat"),
    *("sre_compile", "sre_constants", "sre_parse"),
}
NO_SUBMODULES = {"encodings"}  # over a hundred codecs, with nothing to read
UNLISTED = ("os.path",)  # a public module that is no file of its package
HOMES = sys.stdlib_module_names | {""}  # many a builtin does not say where it is from


class _Rank(NamedTuple):
    """How good a name is, field by field: of the names of one object, the least is its document's."""

    not_builtin: bool
    foreign: bool  # the object says that it comes from elsewhere
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
    """The documents sorted by docid, the same on every call.

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
    """The classes and functions a module offers: those in ``__all__``, else those from there or from private code."""
    listed = getattr(module, "__all__", None)
    for attr in listed or list(vars(module)):
        value = _unbound(getattr(module, attr, None))
        if attr.startswith("_") or not (isinstance(value, type) or inspect.isroutine(value)):
            continue
        home = _home(value) or name
        foreign = _root(home) != _root(name)
        if listed or not foreign or home.startswith("_") or name == "builtins":
            docid = attr if name == "builtins" else f"{name}.{attr}"
            # The start of the name is as good as the name: people write bisect.insort, not bisect.insort_right.
            alias = not f"{getattr(value, '__name__', attr)}_".startswith(f"{attr}_")
            rank = _Rank(name != "builtins", foreign, not listed, docid.count("."), alias, len(docid), docid)
            yield _Entry(rank, value)


def _members(cls: type, rank: _Rank, public: Container[object]) -> Iterator[_Entry]:
    """The methods and properties of a class, less those that have their docstring from a public base class."""
    bases = [_namespace(base) for base in cls.__mro__[1:] if base in public]
    for attr, found in _namespace(cls).items():
        value = getattr(found, "__func__", found)  # of a class method or a static method
        if attr.startswith("_") or not (inspect.isroutine(value) or isinstance(value, property | cached_property)):
            continue
        doc = _own_doc(value)
        if doc and all(doc != _own_doc(base.get(attr)) for base in bases):
            docid = f"{rank.docid}.{attr}"
            yield _Entry(rank._replace(depth=docid.count("."), length=len(docid), docid=docid), value)


def _namespace(cls: type) -> Mapping[str, object]:
    """What a class has by name, as written: looking an attribute up could run its code."""
    return ChainMap(*(dict(vars(base)) for base in cls.__mro__))


def _one_name_each(entries: Iterable[_Entry]) -> list[_Entry]:
    """For every object the entry of its best name."""
    best: dict[int, _Entry] = {}
    for entry in entries:
        best[id(entry.value)] = min(entry, best.get(id(entry.value), entry), key=lambda known: known.rank)
    return list(best.values())


def _unbound(value: object) -> object:
    """What a class has for a function that is really a method, such as ``tarfile.open`` or ``random.choice``."""
    if inspect.ismethod(value):
        return value.__func__
    if inspect.isbuiltin(value) and not isinstance(value.__self__, ModuleType | type | None):
        return getattr(type(value.__self__), value.__name__, value)
    return value


def _home(value: object) -> str:
    """The module that an object says it is from, empty where it says nothing."""
    return getattr(value, "__module__", None) or ""


def _root(name: str) -> str:
    return name.partition(".")[0].lstrip("_")


def _own_doc(value: object) -> str:
    """The cleaned docstring; nothing where it is short, its type's, or the signature that a dataclass makes up."""
    doc = getattr(value, "__doc__", None)
    if not isinstance(doc, str) or (not isinstance(value, type) and doc == type(value).__doc__):
        return ""
    if _home(value).partition(".")[0] not in HOMES:  # put there by another package, as transformers does to logging
        return ""
    text = inspect.cleandoc(doc)
    if isinstance(value, type) and re.fullmatch(rf"{value.__name__}\(.*\)", text):
        return ""
    return text if len(text.split()) >= MIN_WORDS else ""
