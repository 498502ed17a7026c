"""Views of images, and the transformation back."""

import numpy as np
import pytest
from PIL import Image

from dataset.pose.heatmaps import (
    UNANNOTATED,
    box_target,
    mirror_view,
    person_view,
    render_view,
    rotated_box_target,
    to_image,
    to_view,
)
from dataset.pose.samples import Scene

SIZE = (64, 48)


def test_the_box_is_in_the_middle_brought_to_shape_and_widened() -> None:
    view = person_view((100, 50, 48, 32), SIZE, widen=1.25)
    # 48 wide in 48 pixels, 1.25 times: a view's pixel is 1.25 of the photo's.
    np.testing.assert_allclose(to_image(np.array([24.0, 32.0]), view), [124, 66])
    np.testing.assert_allclose(to_image(np.array([25.0, 32.0]), view), [125.25, 66])


@pytest.mark.parametrize("rotation", [0.0, 30.0, -90.0])
def test_there_and_back(rotation: float) -> None:
    points = np.random.default_rng(0).uniform(0, 200, (14, 2))
    for view in (v := person_view((10, 20, 90, 40), SIZE, rotation=rotation), mirror_view(v, SIZE)):
        np.testing.assert_allclose(to_image(to_view(points, view), view), points, atol=1e-9)


def test_mirrored_shows_the_same_the_other_way_round() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8))
    view = person_view((0, 0, 60, 80), SIZE, widen=1.0)
    np.testing.assert_array_equal(
        render_view(photo, mirror_view(view, SIZE), SIZE)[:, ::-1], render_view(photo, view, SIZE)
    )


@pytest.mark.parametrize("side", [12, 24, 96])
@pytest.mark.parametrize("rotation", [0.0, 20.0])
def test_a_dot_is_seen_where_to_view_says(side: int, rotation: float) -> None:
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[200 : 200 + side, 120 : 120 + side] = 255
    view = person_view((0, 0, 400, 400), SIZE, widen=1.1, rotation=rotation)
    seen = render_view(Image.fromarray(pixels), view, SIZE)[..., 0].astype(float)
    down, across = np.indices(seen.shape)
    centre = np.array([(across * seen).sum(), (down * seen).sum()]) / seen.sum()
    middle = np.array([119.5, 199.5]) + side / 2
    np.testing.assert_allclose(centre, to_view(middle, view), atol=0.15)


def test_beyond_the_photo_is_black() -> None:
    seen = render_view(
        Image.new("RGB", (40, 40), "white"), person_view((0, 0, 40, 40), SIZE, 2.0), SIZE
    )
    assert seen[0].max() == 0 and seen[32, 24].min() == 255


def test_the_box_of_a_rotated_person_is_the_bounds_of_the_rotated_joints_with_their_margin() -> (
    None
):
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.uniform((60, 80), (160, 240), (14, 2)), np.full((14, 1), 2)], 1)
    (left, top), (right, bottom) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    margin = 0.1 * (bottom - top)
    box = (left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin)
    size = (128, 96)
    photo = Image.new("RGB", (220, 320))
    scene = Scene(photo, points, box)
    for rotation in (0.0, 90.0):
        view = person_view(box, size, 1.5, rotation)
        seen = np.concatenate([to_view(points[:, :2], view), points[:, 2:]], axis=1)
        target = rotated_box_target(seen, scene.margin, view, photo.size, size)
        # The joints are where the person begins and ends, but for half a pixel.
        low, high = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
        added = 0.1 * np.ptp(seen[:, :2], axis=0).max()
        expected = (np.concatenate([low - added, high + added]) + 0.5) / (96, 128, 96, 128)
        assert target == pytest.approx(expected, abs=1e-4)
        if not rotation:
            assert target == pytest.approx(box_target(box, view, size), abs=0.5 / 96)
    # It ends where the image ends, and is unknown with few joints.
    view = person_view((-60.0, -90.0, 340.0, 500.0), size, 1.0, 0.0)
    seen = np.concatenate([to_view(points[:, :2], view), points[:, 2:]], axis=1)
    whole = rotated_box_target(seen, 2.0, view, photo.size, size)
    assert whole == pytest.approx(box_target((0, 0, 220, 320), view, size), abs=1e-6)
    points[3:, 2] = 0
    unknown = rotated_box_target(points, 0.1, view, photo.size, size)
    assert (unknown == UNANNOTATED).all()
