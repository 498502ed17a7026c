"""Reading splits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import BadInput, Failure
from model.data.loading import class_weights, load_splits, read_images


def splits(folder: Path, *names: str, count: int = 2) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (30, 20), "black").save(folder / name / f"{number}.jpg")
    return folder


def test_without_a_manifest_folders_are_the_labels(tmp_path: Path) -> None:
    data = load_splits(splits(tmp_path, "train/поло", "train/a b", "test/поло"))
    assert data.labels == ("a b", "поло")
    assert [(e.path, e.label) for e in data.examples_of("test")] == [
        ("test/поло/0.jpg", "поло"),
        ("test/поло/1.jpg", "поло"),
    ]


def test_photos_are_read_and_bad_ones_have_a_reason(tmp_path: Path) -> None:
    folder = splits(tmp_path, "train/a", "train/b")
    (folder / "train/b/1.jpg").write_bytes(b"no photo")
    photos = {
        example.path: photo
        for example, photo in read_images(
            folder, load_splits(folder).examples_of("train"), np.asarray
        )
    }
    shapes = {path: getattr(photo, "shape", None) for path, photo in photos.items()}
    assert shapes == {
        "train/a/0.jpg": (20, 30, 3),
        "train/a/1.jpg": (20, 30, 3),
        "train/b/0.jpg": (20, 30, 3),
        "train/b/1.jpg": None,
    }
    assert "not an image" in str(photos["train/b/1.jpg"])


def test_unknown_labels_are_counted_and_hidden_files_ignored(tmp_path: Path) -> None:
    folder = splits(tmp_path, "train/a", "train/b", "train/.ipynb_checkpoints", "test/c", "test/a")
    (folder / "train" / "a" / "._0.jpg").write_bytes(b"of another program")
    data = load_splits(folder)
    assert data.labels == ("a", "b")
    assert len(data.examples_of("train")) == 4
    assert data.unknown_labels == {"c": 2}
    assert [example.label for example in data.examples_of("test")] == ["a", "a"]


def test_a_single_label_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="'only'"):
        load_splits(splits(tmp_path, "train/only"))


def test_a_missing_or_empty_folder_is_rejected_with_a_remedy(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(BadInput, match="build-dataset"):
            load_splits(folder)


def test_class_weights_give_each_class_the_same_total() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 2)
    assert weights == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2.0])


def test_shards_are_rejected_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"any")
    with pytest.raises(BadInput, match="build it with --format folders"):
        load_splits(tmp_path)
