"""Crops by cached key points."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset.pose.models import find_model
from dataset.vocabulary import load_vocabulary
from model.data import crops
from model.data.loading import load_splits


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Find a person in the left half of every photo; return the sizes of the batches."""
    sizes: list[int] = []

    class Finder:
        def find(self, photos: list[Image.Image]) -> np.ndarray:
            sizes.append(len(photos))
            spread = np.linspace(0.1, 0.4, 14)[:, None] * (100, 200)
            places = np.concatenate([spread, np.full((14, 1), 0.9)], axis=1)
            boxes = np.concatenate([spread, spread], axis=1)
            return np.stack([np.concatenate([places, boxes], axis=1) for _ in photos])

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
    person, zone = (
        crops.crop_data(found, crop, model, load_vocabulary(), tmp_path / "cache")
        for crop in ("person", "zone")
    )
    assert batch_sizes == [4]
    assert person.outcomes == {"person": 4}
    assert zone.outcomes["zone"] >= 1
    boxes = {example.box for example in person.data.examples if "broken" not in example.path}
    ((left, top, right, bottom),) = [box for box in boxes if box]
    assert 0 <= left < 10 < 40 < right <= 100
    assert 0 <= top < 20 < 80 < bottom <= 200
    assert crops.crop_data(found, "whole", model, load_vocabulary(), tmp_path).data is found


def test_a_build_of_crops_is_not_cropped_again(tmp_path: Path) -> None:
    found = load_splits(data(tmp_path))
    assert not crops.is_cropped(found)
    columns = {"path": ["a", "b"], "label": ["x", "y"], "split": ["train", "train"]}
    for values, expected in (([None, None], False), (["person", None], True)):
        table = pa.table({**columns, "crop": pa.array(values, pa.string())})
        pq.write_table(table, tmp_path / "manifest.parquet")
        assert crops.is_cropped(found) == expected
