"""The crop policy with key points computed by hand."""

import numpy as np
import pytest

from dataset.pose.crop import PERSON, WHOLE, body_margin, choose_crop, full_box, iou
from dataset.pose.models import COCO

NAMES = COCO.names
SIZE = (300, 600)


def standing(score: float = 0.9) -> np.ndarray:
    """Return a person 400 pixels high in the middle of the image: ears at 100, ankles at 500."""
    heights = {"ear": 100, "eye": 95, "nose": 105, "shoulder": 170, "elbow": 230, "wrist": 290}
    heights |= {"hip": 300, "knee": 400, "ankle": 500}
    sides = {"left": 180, "right": 120}
    points = []
    for name in NAMES:
        side, _, part = name.rpartition("_")
        points.append((sides.get(side, 150), heights[part], score))
    return np.array(points, np.float64)


def test_the_person_with_room_beyond_head_and_feet() -> None:
    crop = choose_crop(standing(), NAMES, SIZE, gate=0.3)
    assert crop.outcome == PERSON and crop.reason == "" and crop.score == pytest.approx(0.9)
    left, top, right, bottom = crop.box
    unit = 500 - 95
    assert top == pytest.approx(95 - body_margin("left_eye") * unit)
    assert bottom == pytest.approx(500 + body_margin("left_ankle") * unit)
    assert left == pytest.approx(300 - right)
    assert left < 120 - 0.05 * unit


def test_points_under_the_gate_are_ignored() -> None:
    points = standing()
    points[0] = (0, 590, 0.29)
    assert (
        choose_crop(points, NAMES, SIZE, 0.3).box
        == choose_crop(np.delete(points, 0, axis=0), NAMES[1:], SIZE, 0.3).box
    )


def test_where_a_joint_may_be_is_kept_too() -> None:
    points = np.concatenate([standing(), np.tile(standing()[:, :2], 2)], axis=1)
    sure = choose_crop(points, NAMES, SIZE, 0.3)
    assert sure == choose_crop(standing(), NAMES, SIZE, 0.3)
    ankle = NAMES.index("left_ankle")
    points[ankle, 3:] = 20, 450, 180, 595
    crop = choose_crop(points, NAMES, SIZE, 0.3)
    assert crop.box == (20, sure.box[1], sure.box[2], 595)
    points[ankle, 2] = 0.1
    assert choose_crop(points, NAMES, SIZE, 0.3).box[0] == sure.box[0]


@pytest.mark.parametrize(("count", "outcome"), [(4, WHOLE), (5, PERSON)])
def test_fewer_than_five_joints_are_no_person(count: int, outcome: str) -> None:
    points = standing(0.1)
    points[5 : 5 + count, 2] = 0.9
    crop = choose_crop(points, NAMES, SIZE, 0.3)
    assert crop.outcome == outcome
    if outcome == WHOLE:
        assert crop.box == (0, 0, *SIZE) and "4 of 5" in crop.reason


def test_clipped_to_the_photo() -> None:
    points = standing()
    points[:, 0] -= 119
    left, _, right, _ = choose_crop(points, NAMES, SIZE, 0.3).box
    assert left == 0 and right < 150


def test_a_person_in_the_background_is_not_the_subject() -> None:
    points = standing()
    points[:, :2] = points[:, :2] / 10 + 100
    crop = choose_crop(points, NAMES, SIZE, 0.3)
    assert crop.outcome == WHOLE and "subject" in crop.reason


def test_a_photo_smaller_than_the_smallest_crop() -> None:
    points = np.array([(i, i, 1.0) for i in range(10, 27)])
    crop = choose_crop(points, NAMES, (30, 30), 0.3)
    assert crop.box == (0, 0, 30, 30)


def test_iou() -> None:
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (1, 1, 2, 2)) == 0


def test_joints_with_low_scores_are_no_person() -> None:
    points = standing()
    points[:, 2] = 0.4
    assert choose_crop(points, NAMES, SIZE, 0.3, 0.39).outcome == PERSON
    crop = choose_crop(points, NAMES, SIZE, 0.3, 0.41)
    assert (crop.outcome, crop.box) == (WHOLE, full_box(SIZE))
    assert "no person" in crop.reason and crop.score == pytest.approx(0.4)
