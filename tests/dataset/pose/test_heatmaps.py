"""Draw and decode heat maps."""

import numpy as np
import pytest

from dataset.pose.heatmaps import UNANNOTATED, decode_points, draw_targets

SIZE = (64, 48)


def test_what_is_drawn_is_read_back() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform((8, 8), (180, 245), (50, 2)), np.ones((50, 1))], axis=1)
    maps = draw_targets(points, SIZE)
    assert maps.shape == (*SIZE, 50) and maps.dtype == np.float32
    plain, dark = (decode_points(maps[None], dark=one)[0] for one in (False, True))
    # A map's pixel is four of the view's: the quarter step leaves at most a quarter of that.
    assert np.abs(plain[:, :2] - points[:, :2]).max() <= 1.01
    assert np.abs(dark[:, :2] - points[:, :2]).max() < 0.2
    assert plain[:, 2].min() > 0.7 and plain[:, 2].max() <= 1


def test_a_joint_may_be_wherever_its_map_is_high() -> None:
    sure, other = ([100, 120, 1.0], [40, 200, 1.0])
    maps = draw_targets(np.array([sure, other]), SIZE)
    both = np.maximum(maps[..., 0], 0.7 * maps[..., 1])
    one, two, low = (
        decode_points(some[None, :, :, None])[0, 0]
        for some in (maps[..., 0], both, np.maximum(maps[..., 0], 0.5 * maps[..., 1]))
    )
    # A bell of two map pixels is at 0.6 of its height two pixels from its middle: 8 in the view.
    np.testing.assert_allclose(one[3:], [92, 112, 108, 128], atol=4)
    np.testing.assert_allclose(two[:3], one[:3])
    # The other top counts as far as it is as high: a pixel either way at 0.7.
    np.testing.assert_allclose(two[3:], [36, 112, 108, 204], atol=4)
    np.testing.assert_allclose(low, one)


def test_what_nobody_annotated_is_unknown_and_what_lies_outside_is_nowhere() -> None:
    maps = draw_targets(np.array([[50, 50, 0], [-9, 50, 2], [50, 300, 1.0]]), SIZE)
    assert (maps[..., 0] == UNANNOTATED).all()
    assert (maps[..., 1:] == 0).all()


@pytest.mark.parametrize("dark", [False, True])
def test_tops_at_the_border_and_flat_maps(dark: bool) -> None:
    maps = np.zeros((1, *SIZE, 3), np.float32)
    maps[0, 0, 0, 0] = maps[0, 63, 47, 1] = 0.5
    points = decode_points(maps, dark)[0]
    np.testing.assert_allclose(points[:, :2], [[0, 0], [188, 252], [0, 0]])
    np.testing.assert_allclose(points[:, 2], [0.5, 0.5, 0])
