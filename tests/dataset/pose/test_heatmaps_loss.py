"""The loss of heat maps."""

import keras
import numpy as np

from dataset.pose.heatmaps import UNANNOTATED, heatmap_loss


def test_the_loss_leaves_out_what_is_unknown() -> None:
    targets = np.zeros((2, 8, 8, 2), np.float32)
    targets[..., 1] = UNANNOTATED
    targets[:, 3, 4, 0] = 1
    maps = np.zeros_like(targets)
    maps[..., 1] = 9
    right = maps + np.maximum(targets, 0)
    wrong, none = (np.asarray(heatmap_loss(targets, keras.ops.array(m))) for m in (maps, right))
    assert wrong.shape == (2,) and (none < wrong).all() and (none < 0.01).all()
