"""The losses of heat maps and boxes."""

import keras
import numpy as np

from dataset.pose.heatmaps import UNANNOTATED, box_loss, heatmap_loss


def test_the_loss_leaves_out_what_is_unknown() -> None:
    targets = np.zeros((2, 8, 8, 2), np.float32)
    targets[..., 1] = UNANNOTATED
    targets[:, 3, 4, 0] = 1
    maps = np.zeros_like(targets)
    maps[..., 1] = 9
    right = maps + np.maximum(targets, 0)
    wrong, none = (np.asarray(heatmap_loss(targets, keras.ops.array(m))) for m in (maps, right))
    assert wrong.shape == (2,) and (none < wrong).all() and (none < 0.01).all()


def test_the_loss_of_boxes_falls_with_overlap() -> None:
    targets = np.array([[0.2, 0.2, 0.8, 0.6]] * 4 + [[UNANNOTATED] * 4], np.float32)
    boxes = np.array(
        [
            [0.2, 0.2, 0.8, 0.6],
            [0.2, 0.2, 0.8, 0.5],
            [0.8, 0.6, 0.9, 0.7],
            [0.8, 0.6, 0.2, 0.2],
            [0.1, 0.2, 0.3, 0.4],
        ],
        np.float32,
    )
    same, near, apart, inverted, unknown = np.asarray(box_loss(targets, keras.ops.array(boxes)))
    assert abs(same) < 1e-4 and unknown == 0
    assert np.isclose(near, 0.1 + 0.25, atol=1e-4)
    # Without an overlap only the differences tell how far away a box is.
    assert np.isclose(apart, 0.6 + 0.4 + 0.1 + 0.1 + 1, atol=1e-4) and inverted > apart
