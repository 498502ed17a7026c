"""Reading splits."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import BadInput, Failure
from model.data import class_weights, find_data, read_photos


def splits(folder: Path, *names: str, count: int = 2) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (30, 20), "black").save(folder / name / f"{number}.jpg")
    return folder


def test_folders_are_the_labels_where_there_is_no_manifest(tmp_path: Path) -> None:
    data = find_data(splits(tmp_path, "train/поло", "train/a b", "test/поло"))
    assert data.labels == ("a b", "поло")
    assert [(e.path, e.label) for e in data.of("test")] == [
        ("test/поло/0.jpg", "поло"),
        ("test/поло/1.jpg", "поло"),
    ]


def test_photos_are_letterboxed_on_white_and_bad_ones_named(tmp_path: Path) -> None:
    folder = splits(tmp_path, "train/a", "train/b")
    (folder / "train/b/1.jpg").write_bytes(b"no photo")
    photos = read_photos(find_data(folder), "train", 30)
    assert photos.pixels.shape == (3, 30, 30, 3)
    assert photos.pixels[0, :, 15, 0].tolist() == [255] * 5 + [0] * 20 + [255] * 5
    assert photos.targets.tolist() == [0, 0, 1]
    assert list(photos.unreadable) == ["train/b/1.jpg"]


def test_an_empty_split_is_an_empty_array(tmp_path: Path) -> None:
    photos = read_photos(find_data(splits(tmp_path, "train/a", "train/b")), "test", 30)
    assert photos.pixels.shape == (0, 30, 30, 3)


def test_one_label_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="'only'"):
        find_data(splits(tmp_path, "train/only"))


def test_a_missing_or_empty_folder_says_to_build_first(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(BadInput, match="build-dataset"):
            find_data(folder)


def test_class_weights_make_each_class_weigh_the_same() -> None:
    weights = class_weights(np.array([0, 0, 0, 1]), 2)
    assert weights == {0: pytest.approx(4 / 6), 1: pytest.approx(2.0)}
