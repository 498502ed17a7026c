"""Features are computed once per view and cached."""

import sqlite3
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from dataset.errors import Failure
from dataset.pose.crop import PERSON, Crop
from model.data.augmentation import parse_augmentation
from model.data.feature_cache import FeatureCache
from model.data.features import FeatureExtractor, Views, predict_logits
from model.data.loading import SplitData, load_splits

SIZE = 20


def splits(folder: Path) -> SplitData:
    for label, colour in (("a/b", "red"), ("б", "blue")):
        for split in ("train", "test"):
            name = folder / split / label.replace("/", "%2F")
            name.mkdir(parents=True)
            for number in range(3):
                photo = Image.new("RGB", (30 + number, 20), colour)
                photo.putpixel((0, 0), (number, 0, 0))
                photo.save(name / f"{number}.png")
    return load_splits(folder)


def extractor(folder: Path) -> FeatureExtractor:
    pixels = keras.Input((SIZE, SIZE, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    return FeatureExtractor(keras.Model(pixels, means), FeatureCache(folder, "means"))


def counted(one: FeatureExtractor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    predict = one.features.predict_on_batch

    def spy(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return predict(batch)

    monkeypatch.setattr(one.features, "predict_on_batch", spy)
    return sizes


def test_features_that_are_not_finite_are_rejected_and_not_cached(tmp_path: Path) -> None:
    data = splits(tmp_path / "data")
    pixels = keras.Input((SIZE, SIZE, 3))
    means = keras.layers.GlobalAveragePooling2D()(pixels)
    for broken in (float("nan"), 1e6):
        network = keras.Model(pixels, keras.layers.Rescaling(broken)(means))
        cache = FeatureCache(tmp_path / "cache", "broken")
        with pytest.raises(Failure, match="the file of --weights is broken"):
            FeatureExtractor(network, cache).extract(data, "train", Views())
        base = sqlite3.connect(cache.path)
        assert base.execute("SELECT count(*) FROM outputs").fetchone() == (0,)
        base.close()


def test_a_view_is_extracted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, one = splits(tmp_path / "data"), extractor(tmp_path / "cache")
    sizes = counted(one, monkeypatch)
    first = one.extract(data, "train", Views())
    assert sum(sizes) == 6
    again = one.extract(data, "train", Views())
    assert sum(sizes) == 6
    assert (first.values == again.values).all()
    more = one.extract(data, "train", Views(parse_augmentation(["rotate=30", "mirror"]), 3))
    assert sum(sizes) == 6 + 12
    assert more.values.shape == (6, 3, 3)
    assert (more.values[:, 0] == first.values[:, 0]).all()
    assert first.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_mirror_alone_has_two_views() -> None:
    assert Views(parse_augmentation(["mirror"]), 5).names("x") == ["x plain", "x mirror=0.5 #1"]
    assert len(Views(parse_augmentation(["mirror", "cutout"]), 5).names("x")) == 5


def test_changed_files_are_extracted_again_and_broken_ones_reported(tmp_path: Path) -> None:
    data, one = splits(tmp_path / "data"), extractor(tmp_path / "cache")
    before = one.extract(data, "train", Views())
    path = data.folder / before.examples[0].path
    Image.new("RGB", (30, 20), "white").save(path)
    (data.folder / before.examples[1].path).write_bytes(b"no photo")
    (data.folder / before.examples[2].path).unlink()
    after = one.extract(data, "train", Views())
    assert len(after.examples) == 4
    assert after.values[0, 0].tolist() == [255, 255, 255]
    assert sorted(after.unreadable) == [example.path for example in before.examples[1:3]]


def test_only_the_crop_of_a_photo_is_used(tmp_path: Path) -> None:
    from dataclasses import replace

    data, one = splits(tmp_path / "data"), extractor(tmp_path / "cache")
    photo = Image.new("RGB", (60, 40), "white")
    photo.paste("black", (0, 0, 20, 20))
    example = data.examples_of("train")[0]
    photo.save(data.folder / example.path)
    cropped = replace(example, crop=Crop(PERSON, (0, 0, 20, 20), 1.0))
    examples = (cropped, *data.examples_of("train")[1:])
    found = one.extract(replace(data, examples=examples), "train", Views())
    assert found.values[0, 0].tolist() == [0, 0, 0]
    assert one.extract(data, "train", Views()).values[0, 0].mean() > 100


def test_raw_photos_are_letterboxed_by_the_models_layer(tmp_path: Path) -> None:
    data, one = splits(tmp_path / "data"), extractor(tmp_path / "cache")
    unreadable: dict[str, str] = {}
    examples, logits = predict_logits(one.features, data, "test", unreadable)
    assert [example.label for example in examples] == ["a%2Fb"] * 3 + ["б"] * 3
    kept = one.extract(data, "test", Views()).values[:, 0].astype(np.float32)
    assert logits == pytest.approx(kept, abs=1.5)
    assert unreadable == {}
