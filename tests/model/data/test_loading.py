"""Reading splits."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset.errors import BadInput, Failure
from model.data.loading import (
    class_weights,
    letterbox,
    load_splits,
    read_images,
    view_digests,
)


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


def masked_build(folder: Path) -> Path:
    """Write a build with --background both: a photo with a mask, and one without."""
    splits(folder, "train/a", "train/b", count=1)
    (folder / "masks").mkdir()
    mask = Image.new("L", (30, 20), 0)
    mask.paste(255, (10, 0, 20, 20))
    mask.save(folder / "masks" / "0.png")
    columns = {
        "path": ["train/a/0.jpg", "train/b/0.jpg"],
        "label": ["a", "b"],
        "split": ["train", "train"],
        "mask": ["masks/0.png", None],
    }
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    return folder


def test_masks_are_a_fourth_channel(tmp_path: Path) -> None:
    data = load_splits(masked_build(tmp_path))
    assert data.channels == 4
    (_, masked), (_, whole) = read_images(tmp_path, data.examples, np.asarray)
    assert isinstance(masked, np.ndarray) and isinstance(whole, np.ndarray)
    assert masked.shape == whole.shape == (20, 30, 4)
    assert (masked[:, 10:20, 3] == 255).all() and masked[..., 3].sum() == 255 * 200
    assert (whole[..., 3] == 255).all() and (masked[..., :3] < 5).all()
    # Colours behind the person are not cleared, and the margins are white and opaque.
    small = letterbox(Image.fromarray(masked), 15)
    assert (small[3:12, :4, :3] < 5).all() and (small[3:12, :4, 3] == 0).all()
    assert (small[0] == 255).all()


def test_a_changed_mask_is_another_photo(tmp_path: Path) -> None:
    data = load_splits(masked_build(tmp_path))
    before = view_digests(tmp_path, data.examples, {})
    Image.new("L", (30, 20), 9).save(tmp_path / "masks" / "0.png")
    after = view_digests(tmp_path, data.examples, {})
    assert [before[e] == after[e] for e in data.examples] == [False, True]
    Image.new("L", (9, 9)).save(tmp_path / "masks" / "0.png")
    (_, reason), _ = read_images(tmp_path, data.examples, np.asarray)
    assert reason == "masks/0.png does not have the size of the photo"
    (tmp_path / "masks" / "0.png").unlink()
    unreadable: dict[str, str] = {}
    assert list(view_digests(tmp_path, data.examples, unreadable)) == [data.examples[1]]
    assert "masks/0.png" in unreadable["train/a/0.jpg"]
    (_, reason), _ = read_images(tmp_path, data.examples, np.asarray)
    assert "masks/0.png" in str(reason)


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


def label_sets(folder: Path, rows: dict[str, list[str]]) -> Path:
    """Write manifest and facets of a build with several labels per photo."""
    (folder / "photos" / "train").mkdir(parents=True)
    facets = {"colour": ["blue", "red"], "lower": ["jeans", "skirt"], "upper": ["blouse"]}
    columns = {
        "path": list(rows),
        "labels": list(rows.values()),
        "split": [path.split("/")[1] for path in rows],
    }
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    (folder / "labels.json").write_text(json.dumps({"facets": facets}))
    return folder


def test_label_sets_have_a_target_per_facet(tmp_path: Path) -> None:
    rows = {
        "photos/train/a.jpg": ["blouse", "jeans", "red"],
        "photos/train/b.jpg": ["skirt"],
        "photos/train/c.jpg": ["blouse"],
        "photos/train/d.jpg": ["blue"],
        "photos/test/e.jpg": ["jeans", "hat"],
    }
    data = load_splits(label_sets(tmp_path, rows))
    assert data.labels == ("blue", "jeans", "red", "skirt")
    assert data.facets is not None
    assert data.facets.names == ("colour", "lower")
    assert data.single_labels == {"upper": "blouse"}
    assert data.unknown_labels == {"hat": 1}
    train = data.examples_of("train")
    assert [example.labels for example in train] == [("jeans", "red"), ("skirt",), ("blue",)]
    assert data.targets(train).tolist() == [[1, 0], [-1, 1], [0, -1]]
    assert [example.label for example in data.examples_of("test")] == ["jeans"]


def test_label_sets_without_facets_or_with_two_labels_of_one_are_rejected(tmp_path: Path) -> None:
    both = label_sets(tmp_path / "both", {"photos/train/a.jpg": ["jeans", "skirt"]})
    data = load_splits(both)
    with pytest.raises(Failure, match="2 labels of the facet lower"):
        data.targets(data.examples)
    few = label_sets(tmp_path / "few", {"photos/train/a.jpg": ["jeans", "red"]})
    with pytest.raises(Failure, match="no facet of"):
        load_splits(few)
    (few / "labels.json").write_text("{}")
    with pytest.raises(BadInput, match="--multi-label"):
        load_splits(few)
