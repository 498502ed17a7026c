"""Builds read by other libraries: Keras, Hugging Face datasets, TensorFlow, mlcroissant."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset.export.formats import FORMATS, read_format
from tests.dataset.test_build import run
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

WANTED = {"train": 16, "validation": 2, "test": 2}


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a build in each format, with twenty images of two labels."""
    builder = CatalogueBuilder(tmp_path_factory.mktemp("formats"))
    builder.products("dress", 10, 0)
    builder.products("платье 🔥", 10, 100)
    folders = {}
    for name in FORMATS:
        run(builder, format=name)
        folders[name] = (builder.folder / "splits").rename(builder.folder / f"as-{name}")
    return folders


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_back(builds: dict[str, Path], name: str) -> None:
    layout = read_format(builds[name])
    assert layout is not None
    photos = dict(layout.read(builds[name]))
    assert Counter(path.split("/")[0] for path in photos) == WANTED
    assert photos == dict(FORMATS["folders"].read(builds["folders"]))


@pytest.mark.parametrize("name", ["folders", "parquet", "webdataset"])
def test_datasets_reads_it_in_one_line(
    builds: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    loaded = datasets.load_dataset(str(builds[name]), cache_dir=str(tmp_path))
    assert {split: len(part) for split, part in loaded.items()} == WANTED
    first = loaded["test"][0]
    photo = first.get("image") or first["jpg"]
    assert (photo.size, photo.format) == ((64, 64), "JPEG")
    if name != "webdataset":
        assert loaded["train"].features["label"].names == ["dress", "платье 🔥"]


def test_keras_reads_folders_in_one_line(builds: dict[str, Path]) -> None:
    import keras

    data = keras.utils.image_dataset_from_directory(builds["folders"] / "train", verbose=False)
    assert data.class_names == ["dress", "платье 🔥"]
    assert len(data.file_paths) == 16


def test_tensorflow_reads_tfrecords(builds: dict[str, Path]) -> None:
    import tensorflow as tf

    files = sorted(str(path) for path in builds["tfrecord"].glob("train-*.tfrecord"))
    (record,) = tf.data.TFRecordDataset(files).take(1)
    wanted = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
    }
    example = tf.io.parse_single_example(record, wanted)
    assert tf.io.decode_jpeg(example["image/encoded"]).shape == (64, 64, 3)
    labels = json.loads((builds["tfrecord"] / "labels.json").read_text())["labels"]
    assert labels[int(example["image/class/label"])] == example["image/class/text"].numpy().decode()


@pytest.mark.parametrize("name", FORMATS)
def test_croissant_is_valid_and_lists_every_photo(builds: dict[str, Path], name: str) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    about: Any = mlcroissant.Dataset(jsonld=str(builds[name] / "croissant.json"))
    assert about.metadata.issues.errors == set()
    records = list(about.records("items"))
    assert Counter(record["items/split"].decode() for record in records) == WANTED


@pytest.mark.parametrize(
    ("resize", "corner"), [("letterbox", True), ("crop", False), ("stretch", False)]
)
def test_photos_are_fitted_as_asked(tmp_path: Path, resize: str, corner: bool) -> None:
    builder = CatalogueBuilder(tmp_path)
    builder.products("polo", 6, 0)
    run(builder, resize=resize, min_per_class=1)
    for _, jpeg in FORMATS["folders"].read(tmp_path / "splits"):
        with Image.open(io.BytesIO(jpeg)) as photo:
            assert photo.size == (64, 64)
            white = all(min(photo.getpixel((1, y))) > 240 for y in range(0, 64, 4))  # type: ignore[arg-type]
            assert white == corner


def test_a_folder_without_a_build_has_no_format(tmp_path: Path) -> None:
    assert read_format(tmp_path) is None


def test_each_split_has_a_folder_for_each_label(tmp_path: Path) -> None:
    import keras

    builder = CatalogueBuilder(tmp_path)
    builder.products("dress", 10, 0)
    # Near duplicates stay in one split.
    cluster = builder.image(photo_bytes(900), builder.post("polo-1", "polo"))
    builder.image(photo_bytes(901), builder.post("polo-2", "polo", author="anna"), cluster=cluster)
    run(builder, min_per_class=1)
    splits = tmp_path / "splits"
    found = {
        path.name: sorted(label.name for label in path.iterdir())
        for path in (splits / name for name in WANTED)
    }
    assert found == {split: ["dress", "polo"] for split in WANTED}
    assert not all(any((splits / name / "polo").iterdir()) for name in WANTED)
    names = [
        keras.utils.image_dataset_from_directory(splits / name, verbose=False).class_names
        for name in WANTED
    ]
    assert names == [["dress", "polo"]] * 3


@pytest.fixture(scope="module")
def multi_label_builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a multi-label build in each format, with twenty images of four labels."""
    builder = CatalogueBuilder(tmp_path_factory.mktemp("multi"))
    for number in range(20):
        hashtags = ("jeans" if number % 2 else "юбка", *(("red",) if number < 10 else ("синий",)))
        builder.image(photo_bytes(number), builder.post(f"p{number}", *hashtags[: 1 + number % 3]))
    folders = {}
    for name in FORMATS:
        run(builder, format=name, multi_label=True, splits=(60, 20, 20), min_per_class=1)
        folders[name] = (builder.folder / "splits").rename(builder.folder / f"as-{name}")
    return folders


def labels_of(build: Path) -> dict[str, list[str]]:
    rows = pq.read_table(build / "manifest.parquet", columns=["path", "labels"]).to_pylist()
    return {row["path"]: row["labels"] for row in rows}


@pytest.mark.parametrize("name", FORMATS)
def test_a_multi_label_build_is_read_back(multi_label_builds: dict[str, Path], name: str) -> None:
    build = multi_label_builds[name]
    layout = read_format(build)
    assert layout is not None
    assert dict(layout.read(build)) == dict(FORMATS["folders"].read(multi_label_builds["folders"]))
    about = json.loads((build / "labels.json").read_text(encoding="utf-8"))
    assert about["labels"] == ["blue", "jeans", "red", "skirt"]
    assert about["facets"] == {"colour": ["blue", "red"], "lower": ["jeans", "skirt"]}
    rows = pq.read_table(build / "manifest.parquet").to_pylist()
    assert Counter(tuple(row["facets"]) for row in rows) == {
        ("lower", "colour"): 13,
        ("lower",): 7,
    }
    assert all(len(row["labels"]) == len(row["facets"]) for row in rows)


def test_datasets_reads_labelled_folders_in_one_line(
    multi_label_builds: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    build = multi_label_builds["folders"]
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(build / "photos"), cache_dir=str(tmp_path)
    )
    assert set(loaded) == {"train", "validation", "test"}
    found = [tuple(row["labels"]) for split in loaded.values() for row in split]
    assert Counter(found) == Counter(map(tuple, labels_of(build).values()))
    assert loaded["train"][0]["image"].size == (64, 64)


@pytest.mark.parametrize("name", ["folders", "parquet", "webdataset"])
def test_datasets_reads_label_lists_in_one_line(
    multi_label_builds: dict[str, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    build = multi_label_builds[name]
    loaded = datasets.load_dataset(str(build), cache_dir=str(tmp_path))
    rows = [row for split in loaded.values() for row in split]
    found = [row["json"]["labels"] if name == "webdataset" else row["labels"] for row in rows]
    if name == "parquet":
        names = loaded["train"].features["labels"].feature.names
        found = [[names[index] for index in row] for row in found]
    assert Counter(map(tuple, found)) == Counter(map(tuple, labels_of(build).values()))


def test_tensorflow_reads_label_lists(multi_label_builds: dict[str, Path]) -> None:
    import tensorflow as tf

    build = multi_label_builds["tfrecord"]
    wanted = {
        "image/filename": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.VarLenFeature(tf.int64),
        "image/class/text": tf.io.VarLenFeature(tf.string),
    }
    names = json.loads((build / "labels.json").read_text())["labels"]
    of_path = labels_of(build)
    for record in tf.data.TFRecordDataset(sorted(map(str, build.glob("*.tfrecord")))):
        example = tf.io.parse_single_example(record, wanted)
        indices = example["image/class/label"].values.numpy()
        texts = [text.decode() for text in example["image/class/text"].values.numpy()]
        assert texts == [names[index] for index in indices]
        assert texts == of_path[example["image/filename"].numpy().decode()]


@pytest.mark.parametrize("name", ["folders", "parquet"])
def test_croissant_has_label_lists(multi_label_builds: dict[str, Path], name: str) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    build = multi_label_builds[name]
    about: Any = mlcroissant.Dataset(jsonld=str(build / "croissant.json"))
    assert about.metadata.issues.errors == set()
    found = {
        record["items/path"].decode(): [label.decode() for label in record["items/labels"]]
        for record in about.records("items")
    }
    assert found == labels_of(build)
