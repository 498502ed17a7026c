"""Reading splits, facets as groups of outputs, and metadata of photos.

The hash of a data set is equal for equal photos, and only for those. Groups, sites and crops of a
manifest are in the order of the examples.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset.errors import BadInput, Failure
from model.data.loading import (
    UNLABELLED,
    Example,
    FacetGroups,
    PhotoMetadata,
    class_weights,
    group_labels,
    hash_dataset,
    letterbox,
    load_metadata,
    load_splits,
    read_images,
    view_digests,
)

LABELS = ("blouse", "dress", "jeans", "red", "shirt")
BY_FACET = {
    "colour": ["red"],
    "lower": ["dress", "jeans"],
    "upper": ["blouse", "dress", "shirt"],
}
HASHED_EXAMPLES = [Example("train/a/1.jpg", "a", "train"), Example("train/b/2.jpg", "b", "train")]
LISTED_EXAMPLES = [Example("test/a/2.jpg", "a", "test"), Example("test/a/1.jpg", "a", "test")]


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
    """Write manifest and facets of a multi-label build."""
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


@pytest.fixture
def facets() -> FacetGroups:
    grouped, _ = group_labels(LABELS, BY_FACET)
    assert grouped is not None
    return grouped


def test_facets_of_one_label_are_left_out_with_labels_of_no_other_facet() -> None:
    facets, labels = group_labels(LABELS, BY_FACET)
    assert labels == ("blouse", "dress", "jeans", "shirt")
    assert facets == FacetGroups(("lower", "upper"), ((1, 2), (0, 1, 3)))
    assert facets.named_labels(labels) == {
        "lower": ["dress", "jeans"],
        "upper": ["blouse", "dress", "shirt"],
    }
    assert group_labels(("jeans", "red"), BY_FACET) == (None, ())


def test_a_label_of_two_facets_is_the_target_of_both(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [0, 2]), ("c", [3])])
    assert targets.tolist() == [[0, 1], [1, 0], [UNLABELLED, 2]]
    assert facets.targets([]).shape == (0, 2)
    with pytest.raises(Failure, match="2 labels of the facet upper"):
        facets.targets([("x.jpg", [0, 3])])


def test_unknown_is_not_absent(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [2]), ("c", [3])])
    assert facets.is_known(targets, 4).tolist() == [
        [True, True, True, True],
        # Of jeans alone it is known that they are no dress.
        [False, True, True, False],
        [True, True, False, True],
    ]
    assert facets.has_label(targets, 4).tolist() == [
        [False, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_encoded_targets_are_zero_where_a_facet_is_unlabelled(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [2]), ("c", [3]), ("d", [2])])
    plain = facets.encode(targets, has_class_weights=False)
    assert (plain > 0).tolist() == [
        [True, False, False, True, False],
        [False, True, False, False, False],
        [False, False, False, False, True],
        [False, True, False, False, False],
    ]
    # The mean weight of a photo is 1, that of its labelled facets is equal.
    assert plain.sum() == pytest.approx(4)
    assert np.unique(plain).tolist() == pytest.approx([0, 0.8])
    balanced = facets.encode(targets, has_class_weights=True)
    assert balanced[:, 0].sum() == pytest.approx(balanced[:, 1].sum())
    assert balanced.sum() == pytest.approx(4)


def test_parts_have_the_labelled_photos_of_each_facet(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [2]), ("c", [3])])
    logits = np.arange(12.0).reshape(3, 4)
    (lower, lower_targets), (upper, upper_targets) = facets.by_facet(logits, targets)
    assert (lower.tolist(), lower_targets.tolist()) == ([[1, 2], [5, 6]], [0, 1])
    assert (upper.tolist(), upper_targets.tolist()) == ([[0, 1, 3], [8, 9, 11]], [1, 2])


def plain(folder: Path, *contents: bytes) -> Path:
    for example, content in zip(HASHED_EXAMPLES, contents, strict=True):
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
    one = hash_dataset(plain(tmp_path / "one", b"1", b"2"), HASHED_EXAMPLES)
    same = hash_dataset(plain(tmp_path / "same", b"1", b"2"), HASHED_EXAMPLES[::-1])
    other = hash_dataset(plain(tmp_path / "other", b"1", b"3"), HASHED_EXAMPLES)
    assert one == same
    assert one.photos == 2
    assert one.sha256 != other.sha256
    # By coreutils: sha256sum of the two lines of JSON, without a line's end after the last.
    assert one.sha256 == "a6cf5bd13867b9240282e7b32c26c7835873acf0ba9fc912484cf5e522ae75de"


def test_a_missing_photo_is_hashed_as_unreadable(tmp_path: Path) -> None:
    whole = hash_dataset(plain(tmp_path, b"1", b"2"), HASHED_EXAMPLES)
    (tmp_path / HASHED_EXAMPLES[0].path).unlink()
    assert hash_dataset(tmp_path, HASHED_EXAMPLES).sha256 != whole.sha256


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


def test_plain_folders_have_no_metadata(tmp_path: Path) -> None:
    assert load_metadata(tmp_path, LISTED_EXAMPLES) == PhotoMetadata()


def test_columns_are_in_the_order_of_the_examples_without_nulls(tmp_path: Path) -> None:
    columns = {
        "path": ["test/a/1.jpg", "test/a/2.jpg", "train/a/3.jpg"],
        "group": ["g1", None, "g1"],
        "site": ["lamoda", None, "twitter"],
        "crop": pa.array([None, None, None], pa.string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    found = load_metadata(tmp_path, LISTED_EXAMPLES)
    # Nobody looked for people: no crops. A photo of no group is one of its own.
    assert found == PhotoMetadata(["test/a/2.jpg", "g1"], ["unknown", "lamoda"], None)
