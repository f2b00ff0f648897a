"""The token index as its users see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import IndexDamaged
from ..model import MixLM
from ..types import Document
from .builder import build
from .local import LocalStore
from .manifest import Manifest
from .protocol import Fetched

__all__ = ["IndexInfo", "TokenIndex"]


@dataclass(frozen=True)
class IndexInfo:
    """Size and identity of an index. ``bytes`` is disk space, all files together."""

    path: str
    documents: int
    bytes: int
    manifest: Manifest

    @property
    def bytes_per_document(self) -> float:
        return self.bytes / max(self.documents, 1)


class TokenIndex:
    """docid -> embedding tokens of one corpus, in a folder on this machine.

    Open an existing one with ``TokenIndex(path)``. Any number of processes may read it.

    Raises:
        InputError: there is no index.
        IndexDamaged: it is half built, torn, or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._store = LocalStore(self.path)
        if not self._store.manifest.complete:
            raise IndexDamaged(
                f"{self.path} is half built ({self._store.rows} documents). Finish it with the command that began it: "
                f"mixlm-rerank index build {self.manifest.corpus} {self.path} --model {self.manifest.model} "
                f"--precision {self.manifest.precision}"
            )

    @classmethod
    def build(
        cls,
        documents: Iterable[Document],
        model: MixLM,
        path: str | Path,
        *,
        precision: str = "int8",
        corpus: str = "CORPUS",
        skip_empty: bool = False,
        progress: bool = True,
    ) -> TokenIndex:
        """Encode documents and write an index. Memory is bounded whatever the size of the corpus.

        Interrupted (Ctrl-C, crash, full disk), it keeps what was committed; the same call resumes and ends with the
        same bytes. Documents that can be iterated twice (a list, a corpus) are checked, and size and time estimated,
        before the long work starts; a generator is taken as it comes.

        Args:
            documents: with unique docids.
            model: its item encoder makes the tokens.
            path: folder of the index; new, or of an interrupted build.
            precision: of the stored tokens: ``"int8"`` (with a scale for each vector), ``"float16"`` or ``"float32"``.
            corpus: where the documents come from, for later messages.
            skip_empty: leave out documents without text instead of refusing them.
            progress: estimate and progress bar on stderr.

        Raises:
            InputError: duplicate docid, empty text, changed corpus on resume, disk full, folder in use.
            IndexMismatch: an interrupted build of another model.
        """
        build(
            documents,
            model,
            Path(path),
            precision=precision,
            corpus=corpus,
            skip_empty=skip_empty,
            progress=progress,
        )
        return cls(path)

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[type[TokenIndex], tuple[Path]]:
        """Pickled as its path: another process opens it anew."""
        return TokenIndex, (self.path.absolute(),)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, docid: str) -> bool:
        return bool(self._store.entries([docid])["row"][0] >= 0)

    def fetch(self, docids: Sequence[str], tokens: int | None = None) -> Fetched:
        """Embedding tokens of many documents at once; the last ``tokens`` of each (all of them for ``None``)."""
        return self._store.fetch(docids, tokens)

    def info(self) -> IndexInfo:
        return IndexInfo(str(self.path), len(self), self._store.bytes, self.manifest)
