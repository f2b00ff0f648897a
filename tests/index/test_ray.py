"""An index that two real Ray workers built has the bytes of a local build, a killed worker or not."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlm_rerank import Document, MixLM, TokenIndex
from mixlm_rerank.errors import InputError
from mixlm_rerank.index import ray_build
from mixlm_rerank.index.builder import new_manifest
from mixlm_rerank.index.shards import Shards

ray = pytest.importorskip("ray")

DOCUMENTS = [Document(f"d{row}", f"this is text number {row} of a corpus", title=f"Text {row}") for row in range(40)]
READS = {"tokens": 4, "title_tokens": 5}  # workers are given titles too


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_build, "SHARD_DOCUMENTS", 5)


@pytest.fixture
def local(tmp_path: Path, tiny: Any, contents: Any) -> dict[str, object]:
    """All that a local build stores."""
    TokenIndex.build(DOCUMENTS, tiny("bert", **READS), tmp_path / "local", progress=False)
    return contents(tmp_path / "local", DOCUMENTS)


@pytest.mark.processes
def test_the_same_bytes_though_a_worker_is_killed(
    cluster: None, tmp_path: Path, tiny: Any, contents: Any, local: dict[str, object]
) -> None:
    shards, killed = tmp_path / "index.shards", tmp_path / "killed"

    class Killed(MixLM):
        """One worker is killed in the midst of its work, when a shard is done; another is started in its place."""

        def encode(self, texts: Any, **options: Any) -> Any:
            if list(shards.glob("part-*.parquet")) and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(texts, **options)

    model = copy.deepcopy(tiny("bert", **READS))
    model.__class__ = Killed
    index = TokenIndex.build(DOCUMENTS, model, tmp_path / "index", engine="ray", progress=False)
    assert killed.exists()
    assert contents(index.path, DOCUMENTS) == local
    assert not (tmp_path / "index.shards").exists()


@pytest.mark.processes
def test_what_is_encoded_already_is_not_encoded_again(
    cluster: None, tmp_path: Path, tiny: Any, contents: Any, local: dict[str, object]
) -> None:
    """Shards that are kept serve the next build: here, of an index that was lost."""
    model, shards = tiny("bert", **READS), tmp_path / "shards"
    common: dict[str, Any] = {"engine": "ray", "shards": str(shards), "workers": 1, "progress": False}
    TokenIndex.build(DOCUMENTS, model, tmp_path / "index", **common)
    written = {path.name: mtime(path) for path in shards.glob("part-*")}
    changed = [*DOCUMENTS[:39], Document("d39", "new text")]
    again = TokenIndex.build(changed, model, tmp_path / "again", **common)
    kept = [name for name, when in written.items() if (shards / name).exists() and mtime(shards / name) == when]
    assert (len(kept), len(written)) == (7, 8)
    assert len(list(shards.glob("part-*"))) == 8
    assert contents(tmp_path / "index", DOCUMENTS) == local
    assert again.compare(changed).unchanged == 40


def mtime(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.processes
def test_what_a_worker_cannot_do_is_said_and_the_rest_is_kept(cluster: None, tmp_path: Path, fresh: Any) -> None:
    model = fresh("bert", tokens=4)
    with torch.no_grad():
        model.item_encoder.backbone.embeddings.word_embeddings.weight.fill_(float("nan"))
    with pytest.raises(
        InputError, match=r"non-finite embedding token .*\(shard part-0.*; those that are done are kept"
    ):
        TokenIndex.build(iter(DOCUMENTS[:3]), model, tmp_path / "index", engine="ray", progress=False)


def test_a_second_try_of_a_worker_finds_its_work_done(tmp_path: Path, tiny: Any) -> None:
    model = tiny("bert", tokens=4)
    manifest = new_manifest(model, "int8", "CORPUS")
    shards = Shards(str(tmp_path / "shards"))
    shards.prepare(ray_build.OWN)
    work = dict(ray_build._named(iter(DOCUMENTS), manifest))
    assert [len(documents) for documents in work.values()] == [5] * 8
    worker, name = ray_build._Worker(model, shards.url, manifest), next(iter(work))
    for documents in (work[name], []):
        assert worker.encode(name, documents) == (name, "")
    assert [name for name in work if shards.holds(name)] == [name]


def test_workers_read_passages_as_a_local_build_does(tmp_path: Path, tiny: Any, contents: Any) -> None:
    model = tiny("bert", tokens=4)
    documents = [Document(f"d{n}", f"text number {n}. " * n, "\ud800 title" * (n % 2)) for n in range(1, 13)]
    index = TokenIndex.build(documents, model, tmp_path / "local", passages=True, progress=False)
    shards = Shards(str(tmp_path / "shards"))
    shards.prepare(ray_build.OWN)
    work = dict(ray_build._named(iter(documents), index.manifest))
    worker = ray_build._Worker(model, shards.url, index.manifest)
    assert [worker.encode(*one) for one in work.items()] == [(name, "") for name in work]
    shards.finish(index.manifest, list(work), 12)
    TokenIndex.import_from(shards.url, tmp_path / "there", progress=False)
    assert contents(tmp_path / "there", documents) == contents(tmp_path / "local", documents)
    assert index.info().records > 20


def test_files_of_others_are_neither_mixed_with_nor_deleted(tmp_path: Path, tiny: Any) -> None:
    """An export, or notes, where the shards would go."""
    model = tiny("bert", tokens=4)
    TokenIndex.build(DOCUMENTS[:3], model, tmp_path / "other", progress=False).export(str(tmp_path / "index.shards"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "index.shards").iterdir()}
    with pytest.raises(InputError, match=r"index.shards holds 'part-000000.parquet', which is not of this"):
        TokenIndex.build(DOCUMENTS, model, tmp_path / "index", engine="ray", progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "index.shards").iterdir()} == before


def test_it_refuses_before_it_starts(tmp_path: Path, tiny: Any) -> None:
    model = tiny("bert", tokens=4)
    TokenIndex.build(DOCUMENTS[:3], model, tmp_path / "index", progress=False)
    with pytest.raises(InputError, match="is a token index already"):
        TokenIndex.build(DOCUMENTS, model, tmp_path / "index", engine="ray", progress=False)
    with pytest.raises(InputError, match="duplicate docid 'd0'"):
        TokenIndex.build([DOCUMENTS[0]] * 2, model, tmp_path / "new", engine="ray", progress=False)
    with pytest.raises(InputError, match="duplicate docid 'd0'"):
        TokenIndex.build(iter([DOCUMENTS[0]] * 2), model, tmp_path / "stream", engine="ray", progress=False)
    with pytest.raises(InputError, match='shards and workers are of the engine "ray"'):
        TokenIndex.build(DOCUMENTS, model, tmp_path / "new", workers=2, progress=False)
    with pytest.raises(InputError, match='engine must be "local" or "ray"'):
        TokenIndex.build(DOCUMENTS, model, tmp_path / "new", engine="spark", progress=False)  # type: ignore[arg-type]
