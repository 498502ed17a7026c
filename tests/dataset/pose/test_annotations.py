"""COCO key-point files: other joint sets, files without people, and broken ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import BadInput
from dataset.pose.annotations import read_people
from dataset.pose.models import JointSet
from tests.support.catalogue_data import photo_bytes

ONE: dict[str, Any] = {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 30, 40]}
ONE["keypoints"] = [5, 6, 2, 9, 9, 2]
SIZED = {"id": 3, "file_name": "a.jpg", "width": 120, "height": 150}


def file_of(folder: Path, **changed: Any) -> Path:
    """Write a file with two joints and one person, with changes at its top level."""
    (folder / "a.jpg").write_bytes(photo_bytes(1))
    category = {"id": 1, "name": "person", "keypoints": ["l_hand", "r_hand"], "skeleton": [[1, 2]]}
    person = {"id": 7, "image_id": 3, "category_id": 1, "bbox": [1, 2, 30, 40]}
    person |= {"keypoints": [5, 6, 2, 9, 9, 0], "area": 500, "iscrowd": 0}
    content = {
        "categories": [category],
        "images": [{"id": 3, "file_name": "a.jpg"}],
        "annotations": [person],
    }
    path = folder / "people.json"
    path.write_text(json.dumps(content | changed))
    return path


def test_a_person_of_any_joints(tmp_path: Path) -> None:
    people = read_people([file_of(tmp_path)], [tmp_path])
    assert people.joints == JointSet(("l_hand", "r_hand"), ((0, 1),))
    assert people.joints.mirrored.tolist() == [1, 0]
    (person,) = people.persons
    assert person.box == (1, 2, 30, 40) and person.area == 500
    np.testing.assert_array_equal(person.points, [[5, 6, 2], [0, 0, 0]])


@pytest.mark.parametrize(
    ("names", "mirrored"),
    [
        (("nose", "left_eye", "right_eye"), [0, 2, 1]),
        (("r_ankle", "l_ankle", "pelvis"), [1, 0, 2]),
        (("left_eye", "nose"), [0, 1]),
    ],
)
def test_sides(names: tuple[str, ...], mirrored: list[int]) -> None:
    assert JointSet(names).mirrored.tolist() == mirrored


def test_crowds_unseen_people_and_missing_photos_are_left_out(tmp_path: Path) -> None:
    one = {name: value for name, value in ONE.items() if name != "id"}
    people = read_people(
        [
            file_of(
                tmp_path,
                images=[{"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "gone.jpg"}],
                annotations=[
                    {"id": 1, **one},
                    {"id": 2, **one, "iscrowd": 1},
                    {"id": 3, **one, "keypoints": [0] * 6},
                    {"id": 4, **one, "image_id": 4},
                    {"id": 5, **one, "keypoints": [0] * 6, "bbox": [0, 0, 0, 0]},
                    {"id": 6, "category_id": 1, "image_id": 3, "bbox": [0, 0, 9, 9]},
                ],
            )
        ],
        [tmp_path],
    )
    assert [person.annotation for person in people.persons] == [1]
    assert people.missing == [tmp_path / "gone.jpg"]


def test_nobody(tmp_path: Path) -> None:
    assert read_people([file_of(tmp_path, annotations=[])], [tmp_path]).persons == []


@pytest.mark.parametrize(
    "changed",
    [
        {"categories": []},
        {"categories": [{"id": 1, "name": "cat"}]},
        {"annotations": [ONE | {"segmentation": [[1, 1, 9, 1, 9, 9]]}]},
        {"images": [SIZED], "annotations": [ONE | {"segmentation": {"size": [9, 9]}}]},
        {"images": [SIZED], "annotations": [ONE | {"segmentation": {"size": [150, 120]}}]},
        {"categories": 5},
        {"images": [{"id": 3}]},
        {"annotations": [{"id": 1, "category_id": 1}]},
        {"annotations": "x"},
        {"annotations": [ONE | {"keypoints": [1, 2]}]},
        {"annotations": [ONE | {"bbox": [0, 0, 0, 1]}]},
        {"annotations": [ONE | {"bbox": [0, 0, float("nan"), 1]}]},
        {"annotations": [ONE | {"image_id": 9}]},
    ],
)  # fmt: skip
def test_broken_files_are_named(changed: dict[str, Any], tmp_path: Path) -> None:
    path = file_of(tmp_path, **changed)
    with pytest.raises(BadInput, match=r"people\.json is not a COCO JSON file"):
        read_people([path], [tmp_path])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadInput, match=r"x\.json"):
        read_people([tmp_path / "x.json"], [tmp_path])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.json"):
        read_people([tmp_path / "none.json"], [tmp_path])


SQUARE = np.zeros((150, 120), np.uint8)
SQUARE[30:60, 20:50] = 255


@pytest.mark.parametrize(
    "segmentation",
    [
        [[20, 30, 50, 30, 50, 60, 20, 60]],
        {"size": [150, 120], "counts": [20 * 150 + 30, *[30, 120] * 29, 30, 70 * 150 + 90]},
    ],
)
def test_a_mask_as_polygons_or_run_lengths(segmentation: Any, tmp_path: Path) -> None:
    one = ONE | {"segmentation": segmentation, "keypoints": []}
    category = {"id": 1, "name": "person"}
    masks = file_of(tmp_path, images=[SIZED], annotations=[one], categories=[category])
    masks = masks.rename(tmp_path / "masks.json")
    people = read_people([file_of(tmp_path), masks], [tmp_path])
    first, second = people.persons
    assert people.has_masks and first.mask_image() is None and not second.has_joints
    assert (first.image, second.image) == (1, 2)
    mask = second.mask_image()
    assert mask is not None and np.array_equal(np.asarray(mask), SQUARE)
    with pytest.raises(BadInput, match="no categories with keypoints"):
        read_people([masks], [tmp_path])
    with pytest.raises(BadInput, match="2 annotation files have 3 folders"):
        read_people([masks, masks], [tmp_path] * 3)


def test_joints_of_further_files_are_matched_by_name(tmp_path: Path) -> None:
    first = file_of(tmp_path).rename(tmp_path / "first.json")
    category = {"id": 1, "name": "person", "keypoints": ["nose", "r_hand"]}
    people = read_people([first, file_of(tmp_path, categories=[category])], [tmp_path])
    assert people.joints.names == ("l_hand", "r_hand")
    # The right hand is not annotated in that file, and nobody has a nose.
    assert len(people.persons) == 1
    category["keypoints"] = ["l_hand", "nose"]
    people = read_people([first, file_of(tmp_path, categories=[category])], [tmp_path])
    np.testing.assert_array_equal(people.persons[1].points, [[5, 6, 2], [0, 0, 0]])
