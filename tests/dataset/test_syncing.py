"""Files that outlast a power cut: which ones the system is told to put on the disk."""

import os
from pathlib import Path

import pytest

from dataset import stores, syncing
from dataset.errors import Failure
from dataset.stores import ImageStore
from dataset.syncing import sync_at_once, sync_each


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced one by one, in order; it is synced, too."""
    paths: list[Path] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        paths.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def kind_of(folder: Path) -> int:
    """What kind of file system FOLDER is on."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        return syncing._kind(handle)
    finally:
        os.close(handle)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")


@needs_proc
def test_each_file_and_each_folder_on_its_way_are_synced_once(
    tmp_path: Path, synced: list[Path]
) -> None:
    root = tmp_path / "images"
    paths = [root / "ab" / "cd" / "1.jpg", root / "ab" / "ce" / "2.jpg"]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"photo")
    sync_each(root, [*paths, paths[0]])
    folders = [root / "ab" / "cd", root / "ab" / "ce", root / "ab", root, tmp_path]
    assert sorted(synced) == sorted([*paths, *folders])
    assert all(synced.index(path) < synced.index(path.parent) for path in paths)


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_each(tmp_path, [tmp_path / "gone.jpg"])


def test_one_call_serves_only_where_the_file_system_promises_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def syncfs(handle: int) -> int:
        calls.append(handle)
        return 0

    monkeypatch.setattr(syncing, "_syncfs", lambda: syncfs)
    monkeypatch.setattr(syncing, "WHOLE", (kind_of(tmp_path),))
    assert sync_at_once(tmp_path) and len(calls) == 1
    monkeypatch.setattr(syncing, "WHOLE", ())
    assert not sync_at_once(tmp_path) and len(calls) == 1


@pytest.mark.skipif(syncing._syncfs() is None, reason="no syncfs on this system")
def test_the_real_call_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "WHOLE", (kind_of(tmp_path),))
    assert sync_at_once(tmp_path)


@needs_proc
def test_a_store_syncs_what_was_put_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[Path]
) -> None:
    monkeypatch.setattr(syncing, "WHOLE", ())
    store = ImageStore(tmp_path / "images")
    store.put(b"one", "ab/cd/1.jpg")
    assert synced == []
    store.sync()
    assert tmp_path / "images" / "ab" / "cd" / "1.jpg" in synced
    synced.clear()
    store.sync()
    assert synced == []
    store.put(b"two", "ab/ce/2.jpg")
    store.sync()
    files = [path for path in synced if path.suffix]
    assert files == [tmp_path / "images" / "ab" / "ce" / "2.jpg"]


def test_a_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stores, "sync_at_once", broken)
    store = ImageStore(tmp_path / "images")
    store.put(b"one", "ab/cd/1.jpg")
    with pytest.raises(Failure, match=r"images.*Input/output"):
        store.sync()
