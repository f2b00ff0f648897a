"""BM25 by Pyserini: index a corpus with Lucene and search it; the first stage of the command line and the demo."""

from __future__ import annotations

import importlib
import json
import sys
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mixlm_rerank.data.corpus import CorpusIdentity, identify
from mixlm_rerank.data.lines import write_json
from mixlm_rerank.errors import InputError
from mixlm_rerank.folders import locked, replacing
from mixlm_rerank.integrations.java import start_java
from mixlm_rerank.model.template import without_lone_surrogates
from mixlm_rerank.progress import progress_bar
from mixlm_rerank.types import Candidate, Document

__all__ = ["Fields", "bm25_run", "build_lucene_index", "check_lucene_index", "open_searcher"]

# flat: title and text in one field; multifield: in two, each searched with weight 1 (Anserini's names, for BEIR).
Fields = Literal["flat", "multifield"]

BATCH = 1000
LONGEST_QUERY = 2**31 - 1  # words
MANIFEST = "corpus.json"


def build_lucene_index(
    documents: Iterable[Document], folder: str | Path, *, fields: Fields = "flat", progress: bool = False
) -> int:
    """Index ``title text`` of each document as one field, or as two, and store the documents. Returns their number.

    Documents without text are left out: no query could find them. The index appears under ``folder`` only when it is
    complete; its corpus.json says what it was built from.

    Raises InputError if ``folder`` exists, a docid occurs twice, or there are no documents.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists: delete it first, or choose another folder")
    start_java()
    with replacing(folder) as draft:
        identity = _fill(draft, documents, fields, progress)
        write_json(draft / MANIFEST, {"fields": fields, "documents": identity.documents, "digest": identity.digest})
    return identity.documents


def check_lucene_index(searcher: Any, folder: str | Path, fields: Fields, documents: Iterable[Document] | None) -> None:
    """Raises InputError if the index was built with other fields, or from other documents (not checked if ``None``).

    An index that :func:`build_lucene_index` did not make has no corpus.json. There this only checks that a multifield
    index has a title field and that the first documents are in the index.
    """
    mend = "choose another folder, or delete it"
    manifest = Path(folder) / MANIFEST
    if manifest.is_file():
        made = json.loads(manifest.read_text(encoding="utf-8"))
        if made["fields"] != fields:
            raise InputError(f"the Lucene index at {folder} is {made['fields']}, not {fields}: {mend}")
        if documents is not None and made["digest"] != identify(documents).digest:
            raise InputError(f"the Lucene index at {folder} was built from other documents: {mend}")
        return
    indexed = importlib.import_module("jnius").autoclass("org.apache.lucene.index.FieldInfos")
    if fields == "multifield" and "title" not in indexed.getIndexedFields(searcher.object.reader).toArray():
        raise InputError(f"the Lucene index at {folder} has no field of titles, so it is not multifield: {mend}")
    docids = [document.docid for document in islice(documents or (), BATCH) if document.content.strip()]
    lacking = [docid for docid in docids if searcher.doc(docid) is None]
    if lacking:
        raise InputError(
            f"the Lucene index at {folder} lacks {len(lacking):,} of the first {len(docids):,} documents "
            f"({lacking[0]!r} ...): {mend}"
        )


def open_searcher(folder: str | Path, *, offline: bool = False) -> Any:
    """A Pyserini LuceneSearcher with BM25 (k1 .9, b .4), for queries of any length.

    Args:
        folder: folder of the index, or the name of one of Pyserini's prebuilt indexes (``msmarco-v1-passage``).
        offline: do not download a prebuilt index.

    Raises:
        InputError: ``folder`` is neither, this Lucene cannot read the index, or it cannot be downloaded.
        MissingDependency: Pyserini or Java is missing.
    """
    start_java()
    if not any(Path(folder).glob("segments_*")):
        folder = _prebuilt(str(folder), offline)
    lucene, jnius = importlib.import_module("pyserini.search.lucene"), importlib.import_module("jnius")
    # Lucene refuses queries of more than 1,024 words; some collections have documents as queries
    jnius.autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(LONGEST_QUERY)
    try:
        return lucene.LuceneSearcher(_absolute(folder))
    except jnius.JavaException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the Lucene index at {folder} cannot be read ({reason}): build it anew") from None


def bm25_run(
    searcher: Any,
    queries: Mapping[str, str],
    *,
    hits: int = 100,
    threads: int = 1,
    drop_same_id: bool = False,
    fields: Fields = "flat",
) -> dict[str, list[Candidate]]:
    """The best ``hits`` documents of every query, best first.

    ``drop_same_id`` leaves out the document whose docid is the qid, before the cut (ArguAna's queries are documents).
    Queries that match nothing get an empty list.
    """
    texts = [without_lone_surrogates(text) for text in queries.values()]  # Java does not take them
    weights = {"contents": 1.0, "title": 1.0} if fields == "multifield" else {}
    found = searcher.batch_search(texts, list(queries), k=hits + int(drop_same_id), threads=threads, fields=weights)
    run = {}
    for qid in queries:
        kept = [Candidate(str(hit.docid), float(hit.score)) for hit in found.get(qid, [])]
        run[qid] = [hit for hit in kept if not (drop_same_id and hit.docid == qid)][:hits]
    return run


def _fill(draft: Path, documents: Iterable[Document], fields: Fields, progress: bool) -> CorpusIdentity:
    """Write a Lucene index into ``draft``; returns the identity of its corpus."""
    lucene = importlib.import_module("pyserini.index.lucene")
    options = ["-fields", "title"] if fields == "multifield" else []
    indexer = lucene.LuceneIndexer(args=["-index", _absolute(draft), "-storeRaw", *options], threads=1)
    stream = (document for document in documents if document.content.strip())
    docids: set[str] = set()
    identity = CorpusIdentity()
    try:
        with progress_bar(None, "lucene", "documents", enabled=progress) as bar:
            while batch := list(islice(stream, BATCH)):
                for document in batch:
                    if document.docid in docids:
                        raise InputError(f"duplicate docid {document.docid!r} in the corpus: docids must be unique")
                    docids.add(document.docid)
                    identity.add(document)
                indexer.add_batch_raw([_json(document, fields) for document in batch])
                bar.update(len(batch))
    finally:
        indexer.close()  # even after an error: it holds a lock
    if not docids:
        raise InputError("the corpus holds no documents")
    return identity


def _prebuilt(name: str, offline: bool) -> str:
    """The folder of a prebuilt index. Downloads it if needed, one process at a time."""
    util = importlib.import_module("pyserini.util")
    if Path(name).exists() or name not in util.TF_INDEX_INFO:
        other = "" if Path(name).exists() else ", and Pyserini has no prebuilt one of that name"
        raise InputError(f"no Lucene index at {name} (make one: mixlm-rerank bm25 index CORPUS {name}){other}")
    home, known = Path(util.get_cache_home()), util.TF_INDEX_INFO[name]
    if offline and not util.check_downloaded(name):
        raise InputError(f"Pyserini's index {name} is not in {home}: leave out --offline to download it")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locked(home), redirect_stdout(sys.stderr):
            return str(util.download_prebuilt_index(name, verbose=False))
    except (OSError, EOFError, ValueError, AssertionError, HTTPException, tarfile.TarError) as error:
        raise InputError(f"Pyserini cannot download its index {name} ({known['urls'][0]}): {error}") from None


def _absolute(path: str | Path) -> str:
    """An absolute path, for Java: its working directory stays the one in which it was started."""
    return str(Path(path).absolute())


def _json(document: Document, fields: Fields) -> str:
    flat = f"{document.title} {document.text}".strip()
    # Anserini leaves out documents whose contents are empty
    contents = flat if fields == "flat" or not document.text.strip() else document.text
    stored = {"id": document.docid, "contents": contents, "title": document.title, "text": document.text}
    return without_lone_surrogates(json.dumps(stored, ensure_ascii=False))
