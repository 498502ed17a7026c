"""The hash of a data set is equal for equal photos, and only for those."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.data.loading import Example
from model.data.metadata import hash_dataset

EXAMPLES = [Example("train/a/1.jpg", "a", "train"), Example("train/b/2.jpg", "b", "train")]


def plain(folder: Path, *contents: bytes) -> Path:
    for example, content in zip(EXAMPLES, contents, strict=True):
        path = folder / example.path
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return folder


def build(folder: Path, **changed: list[str]) -> Path:
    columns = {
        "path": ["train/a/1.jpg", "train/b/2.jpg"],
        "label": ["a", "b"],
        "split": ["train", "train"],
        "file_sha256": ["11", "22"],
        **changed,
    }
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    return folder


def test_plain_folders_are_hashed_by_their_files_in_any_order(tmp_path: Path) -> None:
    one = hash_dataset(plain(tmp_path / "one", b"1", b"2"), EXAMPLES)
    same = hash_dataset(plain(tmp_path / "same", b"1", b"2"), EXAMPLES[::-1])
    other = hash_dataset(plain(tmp_path / "other", b"1", b"3"), EXAMPLES)
    assert one == same
    assert one.photos == 2
    assert one.sha256 != other.sha256
    # By coreutils: sha256sum of the two lines of JSON, without a line's end after the last.
    assert one.sha256 == "a6cf5bd13867b9240282e7b32c26c7835873acf0ba9fc912484cf5e522ae75de"


def test_a_missing_photo_is_hashed_as_unreadable(tmp_path: Path) -> None:
    whole = hash_dataset(plain(tmp_path, b"1", b"2"), EXAMPLES)
    (tmp_path / EXAMPLES[0].path).unlink()
    assert hash_dataset(tmp_path, EXAMPLES).sha256 != whole.sha256


@pytest.mark.parametrize("column", ["path", "label", "split", "file_sha256"])
def test_a_build_is_hashed_by_its_manifest_without_reading_photos(
    tmp_path: Path, column: str
) -> None:
    one = hash_dataset(build(tmp_path / "one"), [])
    other = hash_dataset(build(tmp_path / "other", **{column: ["train/a/1.jpg", "x"]}), [])
    assert one.photos == 2
    assert "file_sha256" in one.hashed
    assert one.sha256 != other.sha256


def test_the_rows_order_does_not_matter(tmp_path: Path) -> None:
    turned = {
        "path": ["train/b/2.jpg", "train/a/1.jpg"],
        "label": ["b", "a"],
        "file_sha256": ["22", "11"],
    }
    one, other = build(tmp_path / "one"), build(tmp_path / "other", **turned)
    assert hash_dataset(one, []) == hash_dataset(other, [])
