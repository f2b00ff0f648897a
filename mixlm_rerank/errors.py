"""The exceptions of this package, as one small tree.

    MixLMError
    ├── InputError          the caller's data or arguments: named, with what was expected and how to fix it
    ├── MissingDocuments    candidates that the token index does not hold, under missing="error"
    ├── IndexMismatch       a token index that was built by another item encoder
    ├── IndexDamaged        a token index that is not whole (torn, foreign, of another format version)
    ├── StoreUnavailable    a shared cache (Redis) that does not answer
    └── MissingDependency   an extra (or Java) that this feature needs and this machine lacks

Every message names the thing, what was expected and how to fix it. The command line prints it as one line and exits
with code 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from urllib.parse import unquote, urlsplit

__all__ = ["IndexDamaged", "IndexMismatch", "InputError", "MissingDependency", "MissingDocuments", "MixLMError"]
__all__ += ["StoreUnavailable", "install_command", "masked", "optional_import"]


class MixLMError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(MixLMError, ValueError):
    """The caller's data or arguments cannot be used as they are."""


class MissingDocuments(MixLMError, KeyError):
    """Some candidates are not in the token index. ``docids`` holds them all."""

    def __init__(self, docids: Sequence[str], *, textless: bool = False) -> None:
        self.docids = list(docids)
        shown = ", ".join(repr(docid) for docid in self.docids[:5])
        more = f" and {len(self.docids) - 5} more" if len(self.docids) > 5 else ""
        lack, mend = "", 'choose missing "encode" (their text, now)'
        if textless:
            lack, mend = ", and no text was given to encode", "give their text"
        super().__init__(
            f"the token index lacks candidates{lack}: {shown}{more}. Add them to the index, {mend}, or choose "
            'missing "last" (below all others)'
        )

    def __str__(self) -> str:  # KeyError would print the repr
        return str(self.args[0])


class IndexMismatch(MixLMError):
    """A token index was opened with a model whose item encoder did not build it."""


class IndexDamaged(MixLMError):
    """A token index cannot be read: torn, incomplete, foreign, or of another format version."""


class StoreUnavailable(MixLMError):
    """A shared cache of embedding tokens does not answer; the next call tries it again."""


class MissingDependency(MixLMError, ImportError):
    """An optional dependency is not installed; the message ends with the command that installs ``extra``."""

    def __init__(self, message: str, extra: str | None = None) -> None:
        super().__init__(message if extra is None else f"{message}: {install_command(extra)}")


@contextmanager
def optional_import(message: str, extra: str | None = None) -> Iterator[None]:
    """``with optional_import("the plot needs matplotlib", "train"): import matplotlib`` raises MissingDependency."""
    try:
        yield
    except ImportError:
        raise MissingDependency(message, extra) from None


def install_command(extra: str) -> str:
    """The command that installs an extra from where this package came from: a checkout, a URL, or the package index.

    pip records the origin of packages that did not come from the index (PEP 610).
    """
    notes = (found.read_text("direct_url.json") for found in distributions(name="mixlm-rerank"))
    origin = json.loads(next(filter(None, notes), "{}"))
    url = origin.get("url", "")
    if origin.get("dir_info", {}).get("editable"):
        return f'pip install -e "{unquote(urlsplit(url).path)}[{extra}]"'
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f'pip install "mixlm-rerank[{extra}]{url and f" @ {url}"}"'


def masked(url: str) -> str:
    """The text with user and password of a Redis URL hidden, for messages and logs.

    >>> masked("redis://:secret@cache:6379/0#wiki")
    'redis://***@cache:6379/0#wiki'
    """
    return re.sub(r"(username|password)=[^&#]*", r"\1=***", re.sub(r"(:/+).*@", r"\1***@", url))
