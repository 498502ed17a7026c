"""The crop policy with key points computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataset.pose.crop import (
    PERSON,
    WHOLE,
    Crop,
    agreement,
    body_margin,
    choose_crop,
    full_box,
    iou,
    replace_background,
)
from dataset.pose.heatmaps import PersonMask
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


def mask_of(*boxes: tuple[int, int, int, int]) -> PersonMask:
    """Return a mask of an image of SIZE with rectangles, at a tenth of its sides."""
    values = np.zeros((SIZE[1] // 10, SIZE[0] // 10), np.uint8)
    for left, top, right, bottom in boxes:
        values[top // 10 : bottom // 10, left // 10 : right // 10] = 255
    return PersonMask(values, (0.0, 0.0, float(SIZE[0]), float(SIZE[1])))


def test_the_box_of_a_mask_is_without_its_small_parts() -> None:
    assert mask_of((100, 50, 200, 550)).box(0.5) == pytest.approx((100, 50, 200, 550), abs=3)
    two = mask_of((100, 50, 200, 550), (0, 0, 20, 40))
    assert two.box(0.5) == pytest.approx((100, 50, 200, 550), abs=3)
    assert mask_of().box(0.5) is None


def test_the_crop_is_the_mean_of_both_boxes_or_the_mask_s_where_they_disagree() -> None:
    points = standing(0.5)
    joints = np.array(choose_crop(points, NAMES, SIZE, 0.3).box)
    mask = mask_of((30, 40, 270, 590))
    assert iou(tuple(joints), (30, 40, 270, 590)) > 0.8
    crop = choose_crop(points, NAMES, SIZE, 0.3, mask=mask)
    assert crop.box == pytest.approx(0.85 * joints + 0.15 * np.array((30, 40, 270, 590)), abs=2)
    assert crop.mask is mask
    mask = mask_of((100, 50, 200, 480))
    crop = choose_crop(points, NAMES, SIZE, 0.3, mask=mask)
    assert crop.box == pytest.approx((100, 50, 200, 480), abs=6)
    # Without a person in the mask, the joints decide.
    crop = choose_crop(points, NAMES, SIZE, 0.3, mask=mask_of())
    assert crop.box == tuple(joints)
    # Nobody is found by a mask alone.
    points[:, 2] = 0.1
    crop = choose_crop(points, NAMES, SIZE, 0.3, mask=mask)
    assert crop.outcome == WHOLE and crop.mask is None


def test_the_crop_is_the_mean_with_the_box_head_s_box() -> None:
    points, mask = standing(0.5), mask_of((30, 40, 270, 590))
    without = np.array(choose_crop(points, NAMES, SIZE, 0.3, mask=mask).box)
    bounds = (100.0, 90.0, 320.0, 560.0)
    crop = choose_crop(points, NAMES, SIZE, 0.3, mask=replace(mask, bounds=bounds))
    wanted = 0.4 * without + 0.6 * np.array(bounds)
    assert crop.box == pytest.approx(np.minimum(wanted, (*SIZE, *SIZE)), abs=0.1)
    # Nobody is found by the box head alone.
    points[:, 2] = 0.1
    crop = choose_crop(points, NAMES, SIZE, 0.3, mask=replace(mask, bounds=bounds))
    assert crop.outcome == WHOLE


def test_the_box_head_decides_where_joints_and_mask_disagree() -> None:
    points, mask = standing(0.5), mask_of((100, 50, 200, 480))
    joints = np.array(choose_crop(points, NAMES, SIZE, 0.3).box)
    found = np.array(choose_crop(points, NAMES, SIZE, 0.3, mask=mask).box)
    for box in (joints, found):
        left, top, right, bottom = map(float, box)
        bounds = left + 4, top, right, bottom
        crop = choose_crop(points, NAMES, SIZE, 0.3, mask=replace(mask, bounds=bounds))
        assert crop.box == pytest.approx((left + 2.4, top, right, bottom), abs=0.1)


def test_agreement_is_the_mean_iou_of_the_boxes_that_were_found() -> None:
    points, mask = standing(0.5), mask_of((100, 50, 200, 480))
    joints = choose_crop(points, NAMES, SIZE, 0.3).box
    found = mask.box(0.1)
    assert found and agreement(points, NAMES, SIZE, 0.3, None) == 1
    assert agreement(points, NAMES, SIZE, 0.3, mask) == iou(joints, found)
    three = agreement(points, NAMES, SIZE, 0.3, replace(mask, bounds=joints))
    assert three == pytest.approx((1 + 2 * iou(joints, found)) / 3)
    # Without a person in the mask or joints that count, their boxes are left out.
    empty = replace(mask_of(), bounds=found)
    assert agreement(points, NAMES, SIZE, 0.3, empty) == iou(joints, found)
    assert agreement(points, NAMES, SIZE, 0.6, replace(mask, bounds=joints)) == iou(joints, found)


def test_a_mask_is_saved_and_scaled() -> None:
    mask = mask_of((100, 50, 200, 480))
    again = PersonMask.from_bytes(mask.to_bytes())
    assert np.array_equal(again.values, mask.values) and again.region == mask.region
    assert again.bounds is None
    bounded = replace(mask, bounds=(90.5, 40.5, 210.5, 490.5))
    assert PersonMask.from_bytes(bounded.to_bytes()).bounds == bounded.bounds
    assert bounded.scaled(np.array([2.0, 3.0])).bounds == (181, 121.5, 421, 1471.5)
    double = mask.scaled(np.array([2.0, 2.0])).draw((600, 1200))
    assert double.getpixel((250, 500)) == 255 and double.getpixel((150, 500)) == 0


@pytest.mark.parametrize("background", ["keep", "blur", "white"])
def test_the_background_of_a_person(background: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (*SIZE[::-1], 3)).astype(np.uint8)
    photo, mask = Image.fromarray(pixels), mask_of((100, 50, 200, 550))
    box = (50.0, 0.0, 250.0, 600.0)
    kept = np.asarray(replace_background(photo, Crop(PERSON, box, 1.0, mask=mask), background))
    assert kept.shape == (600, 200, 3)
    # The person is unchanged, and so is everything where nobody is found.
    assert np.array_equal(kept[100:500, 70:130], pixels[100:500, 120:180])
    behind = kept[100:500, :30].astype(int)
    if background == "keep":
        assert np.array_equal(kept, pixels[:, 50:250])
    elif background == "white":
        assert (behind == 255).all()
    else:
        assert behind.std() < 10 and 50 < behind.mean() < 150
    nobody = replace_background(photo, Crop(PERSON, box, 1.0), background)
    assert np.array_equal(np.asarray(nobody), pixels[:, 50:250])


def test_both_renderings_of_a_person() -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (*SIZE[::-1], 3)).astype(np.uint8)
    photo, box = Image.fromarray(pixels), (50.0, 0.0, 250.0, 600.0)
    crop = Crop(PERSON, box, 1.0, mask=mask_of((100, 50, 200, 550)))
    both = replace_background(photo, crop, "both")
    assert both.mode == "RGBA"
    assert np.array_equal(np.asarray(both.convert("RGB")), pixels[:, 50:250])
    white = Image.new("RGB", both.size, "white")
    white.paste(both, mask=both.getchannel("A"))
    expected = np.asarray(replace_background(photo, crop, "white"), int)
    assert np.abs(np.asarray(white, int) - expected).max() <= 1
    nobody = replace_background(photo, Crop(PERSON, box, 1.0), "both")
    assert np.array_equal(np.asarray(nobody)[..., :3], pixels[:, 50:250])
    assert nobody.getchannel("A").getextrema() == (255, 255)
