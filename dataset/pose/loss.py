"""What a pose training makes small."""

from typing import Any

import keras

from dataset.pose.heatmaps import UNKNOWN

# A map of the right height, 1 on 0, is then nearly all of the softmax over its places.
SHARPNESS = 12.0
PLACE_WEIGHT = 0.01
TINY = 1e-6


def heat_map_loss(targets: Any, maps: Any) -> Any:
    """How far MAPS are from TARGETS, both (batch, height, width, joints): (batch,).

    The published mean squared error, which says how high a map should be, and a cross entropy over
    each map's places, which says where, and goes on teaching where the first has become tiny.
    Joints whose targets are UNKNOWN count in neither.
    """
    ops = keras.ops
    targets = ops.cast(targets, maps.dtype)
    known = ops.cast(targets[:, 0, 0, :] != UNKNOWN, maps.dtype)
    bells = ops.maximum(targets, 0.0)
    squares = ops.mean(ops.square(maps - bells), axis=(1, 2))
    places = int(maps.shape[1]) * int(maps.shape[2]), int(maps.shape[3])
    shares = ops.reshape(bells, (-1, *places))
    shares = shares / (ops.sum(shares, axis=1, keepdims=True) + TINY)
    logs = ops.log_softmax(ops.reshape(maps, (-1, *places)) * SHARPNESS, axis=1)
    entropies = -ops.sum(shares * logs, axis=1)
    return ops.mean(known * (squares + PLACE_WEIGHT * entropies), axis=-1)
