"""Crops by cached key points."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset.pose.heatmaps import Estimate, PersonMask
from dataset.pose.models import find_model
from model.data import crops
from model.data.loading import load_splits


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Find a person in the left half of every photo; return the sizes of the batches."""
    sizes: list[int] = []

    class Finder:
        def find(self, photos: list[Image.Image]) -> list[Estimate]:
            sizes.append(len(photos))
            spread = np.linspace(0.1, 0.4, 14)[:, None] * (100, 200)
            places = np.concatenate([spread, np.full((14, 1), 0.9)], axis=1)
            boxes = np.concatenate([spread, spread], axis=1)
            values = np.full((8, 8), 200, np.uint8)
            mask = PersonMask(values, (10.0, 20.0, 40.0, 80.0), (8.0, 16.0, 44.0, 90.0))
            return [Estimate(np.concatenate([places, boxes], axis=1), mask) for _ in photos]

    monkeypatch.setattr(crops, "load_estimator", lambda model: Finder())
    return sizes


def data(folder: Path) -> Path:
    for label in ("jeans", "поло"):
        (folder / "train" / label).mkdir(parents=True)
        for number in range(2):
            photo = Image.new("RGB", (100, 200), (number, len(label), 0))
            photo.save(folder / "train" / label / f"{number}.png")
    (folder / "train" / "поло" / "broken.jpg").write_bytes(b"none")
    return folder


def test_each_photo_is_processed_once_and_cropped_to_its_box(
    tmp_path: Path, batch_sizes: list[int]
) -> None:
    found = load_splits(data(tmp_path / "data"))
    model = find_model("hrnet-small", None)
    person, again = (crops.crop_data(found, "person", model, tmp_path / "cache") for _ in range(2))
    assert batch_sizes == [4]
    assert person.outcomes == {"person": 4} and again == person
    boxes = {e.crop.box for e in person.data.examples if e.crop}
    ((left, top, right, bottom),) = boxes
    assert 0 <= left <= 10 < 40 <= right <= 100
    assert 0 <= top <= 20 < 80 <= bottom <= 200
    assert crops.crop_data(found, "whole", model, tmp_path).data is found


def test_the_central_strip_is_of_the_photo_alone(tmp_path: Path) -> None:
    found = load_splits(data(tmp_path / "data"))
    strip = crops.crop_data(found, "strip", find_model("hrnet-small", None), tmp_path)
    assert strip.outcomes == {"strip": 4}
    assert {e.crop.box for e in strip.data.examples if e.crop} == {(20, 0, 80, 200)}


def test_renaming_labels_changes_no_crop(tmp_path: Path, batch_sizes: list[int]) -> None:
    folder, model = data(tmp_path / "data"), find_model("hrnet-small", None)
    before = crops.crop_data(load_splits(folder), "person", model, tmp_path / "cache").data
    for old, new in (("jeans", "x"), ("поло", "jeans"), ("x", "поло")):
        (folder / "train" / old).rename(folder / "train" / new)
    after = crops.crop_data(load_splits(folder), "person", model, tmp_path / "cache").data
    assert {e.label for e in after.examples} == {"jeans", "поло"}
    by_path = {(e.label, e.path.rpartition("/")[2]): e.crop for e in before.examples}
    swapped = {"jeans": "поло", "поло": "jeans"}
    for example in after.examples:
        key = swapped[example.label], example.path.rpartition("/")[2]
        assert by_path[key] == example.crop


def test_a_build_of_crops_is_not_cropped_again(tmp_path: Path) -> None:
    found = load_splits(data(tmp_path))
    assert not crops.is_cropped(found)
    columns = {"path": ["a", "b"], "label": ["x", "y"], "split": ["train", "train"]}
    for values, expected in (([None, None], False), (["person", None], True)):
        table = pa.table({**columns, "crop": pa.array(values, pa.string())})
        pq.write_table(table, tmp_path / "manifest.parquet")
        assert crops.is_cropped(found) == expected
