"""The index file: reading and writing, transactions, and damaged files."""

import multiprocessing
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import BadInput, Failure
from model.similar import index_file
from model.similar.index_file import (
    Filters,
    IndexFile,
    IndexItem,
    create_index,
    lock_index,
    open_index,
)


def items(count: int, first: int = 0) -> list[IndexItem]:
    return [
        IndexItem(
            f"id-{number}",
            f"{number:064x}",
            f"{number}.jpg",
            site=("lamoda", "twitter")[number % 2],
            label=("dress", "polo", "")[number % 3],
            price=None if number % 5 == 0 else float(number),
            product=f"lamoda:P{number // 2}",
            url=f"https://x.test/{number}",
        )
        for number in range(first, first + count)
    ]


def rows(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((count, 16)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index of 50 items in blocks of 8."""
    made = tmp_path / "similar.index"
    with pytest.MonkeyPatch.context() as patch, lock_index(made), create_index(made) as index:
        patch.setattr(index_file, "BLOCK_ROWS", 8)
        index.set_facts({"model": "a", "source": {"kind": "folder"}})
        index.write_arrays("embedding", {"turn": np.eye(3, dtype=np.float32)})
        index.add(items(50), rows(50))
    return made


def contents(path: Path) -> tuple[dict[str, IndexItem], dict[str, np.ndarray]]:
    """Items and vectors by id."""
    with closing(open_index(path)) as index:
        known = dict(index.all_items())
        places, vectors = index.vectors()
        by_id = {known[int(p)].id: v for p, v in zip(places, vectors, strict=True)}
        return {item.id: item for item in known.values()}, by_id


def test_items_and_vectors_are_read_back(path: Path) -> None:
    found, vectors = contents(path)
    assert list(found.values()) == items(50)
    # Vectors are kept as float16.
    for name, row in zip(found, rows(50), strict=True):
        np.testing.assert_allclose(vectors[name], row, rtol=0, atol=1e-3)
    with closing(open_index(path)) as index:
        assert index.facts() == {"model": "a", "source": {"kind": "folder"}}
        assert (index.read_arrays("embedding")["turn"] == np.eye(3)).all()


def test_removed_items_leave_no_bytes(path: Path) -> None:
    secret = items(1, 70)[0]
    with closing(open_index(path)) as index:
        with index.transaction():
            index.add([*items(3, 60), secret], rows(4, 9))
        assert len(index) == 54
        (gone, _), (other, _) = index.find(secret.id)[0], index.find("id-3")[0]
        with index.transaction():
            index.remove([gone, other])
    found, vectors = contents(path)
    assert set(found) == set(vectors) == {i.id for i in [*items(50), *items(3, 60)]} - {"id-3"}
    np.testing.assert_allclose(vectors["id-61"], rows(4, 9)[1], rtol=0, atol=1e-3)
    assert secret.sha256.encode() not in path.read_bytes()
    assert rows(4, 9)[3].astype("<f2").tobytes() not in path.read_bytes()


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    before = contents(path)[0]
    with (
        closing(open_index(path)) as index,
        pytest.raises(Failure, match="UNIQUE"),
        index.transaction(),
    ):
        index.remove([0, 1, 2])
        index.add(items(1, 49), rows(1))
    assert contents(path)[0] == before


def test_filters(path: Path) -> None:
    with closing(open_index(path)) as index:
        found = index.filter_keys(Filters(("lamoda",), ("dress", "polo"), 10.0, 40.0))
        wanted = [
            n for n in range(50) if n % 2 == 0 and n % 3 in (0, 1) and n % 5 != 0 and 10 <= n <= 40
        ]
        assert found.tolist() == wanted
        assert index.filter_keys(Filters()).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("id-7", ["id-7"]),
        ("https://x.test/7", ["id-7"]),
        ("lamoda:P3", ["id-6", "id-7"]),
        ("P3", ["id-6", "id-7"]),
        ("0" * 63 + "7", ["id-7"]),
        ("0" * 62, ["id-0", "id-1"]),
        ("P%", []),
        ("0000000", []),
    ],
)
def test_names_of_items(path: Path, name: str, found: list[str]) -> None:
    with closing(open_index(path)) as index:
        assert [item.id for _, item in index.find(name)] == found


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7, 0.9])
def test_a_flipped_byte_is_detected(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    block = rows(50)[:8].astype("<f2").tobytes()
    start = bytes(data).index(block[:64])
    data[start + int(where * len(block))] ^= 4
    path.write_bytes(data)
    with closing(open_index(path)) as index, pytest.raises(Failure) as caught:
        index.vectors()
    assert str(path) in caught.value.message
    assert "find-similar --build" in caught.value.message


@pytest.mark.parametrize("kept", [0, 10, 5000, 0.5, 0.9])
def test_a_truncated_file_is_detected(path: Path, kept: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])

    def read() -> None:
        with closing(open_index(path)) as index:
            index.vectors()
            list(index.all_items())

    with pytest.raises(Failure, match=r"can't be used.*--build"):
        read()


def test_other_files_and_versions_are_rejected(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        open_index(tmp_path / "none.index")
    (tmp_path / "text.index").write_text("no index " * 1000, encoding="utf-8")
    with pytest.raises(Failure, match="can't be used"):
        open_index(tmp_path / "text.index")
    with closing(open_index(path)) as index:
        index._base.execute("PRAGMA user_version = 99")
    with pytest.raises(Failure, match="version is 99"):
        open_index(path)


def test_only_one_process_writes(path: Path) -> None:
    with (
        lock_index(path),
        pytest.raises(Failure, match=f"process {os.getpid()} writes"),
        lock_index(path),
    ):
        pass
    with lock_index(path):
        pass


def _add_for_ever(path: Path) -> None:
    with closing(open_index(path)) as index, index.transaction():
        index.add(items(4000, 100), rows(4000))
        time.sleep(60)


def test_a_killed_change_leaves_the_index_as_it_was(path: Path) -> None:
    before = contents(path)[0]
    process = multiprocessing.get_context("spawn").Process(target=_add_for_ever, args=(path,))
    process.start()
    journal = path.with_name(f"{path.name}-journal")
    while not (journal.exists() and journal.stat().st_size):
        assert process.is_alive()
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert contents(path)[0] == before


def test_an_existing_index_stays_until_the_new_one_is_complete(path: Path) -> None:
    before = contents(path)[0]
    with pytest.raises(KeyboardInterrupt), lock_index(path), create_index(path) as index:
        index.add(items(5), rows(5))
        raise KeyboardInterrupt
    assert contents(path)[0] == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["similar.index"]


def test_an_empty_index_has_no_vectors(tmp_path: Path) -> None:
    path = tmp_path / "e.index"
    with lock_index(path), create_index(path):
        pass
    with closing(open_index(path)) as index:
        assert isinstance(index, IndexFile)
        assert len(index.vectors()[0]) == 0
