"""Resizing by matrix products equals Keras', for shapes that are rounded differently."""

import numpy as np
import pytest
from keras import layers

from dataset.errors import Failure
from model.export.exporter import replace_resizing

SHAPES = [
    *((1, 91, 133), (2, 75, 75), (1, 40, 1201), (1, 1111, 37), (1, 1, 1), (1, 1, 9), (1, 75, 76)),
    *((1, 601, 800), (3, 20, 31), (1, 20, 3000)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((75, 75), {"pad_to_aspect_ratio": True, "fill_value": 255.0, "antialias": True}),
        ((299, 299), {"pad_to_aspect_ratio": True, "fill_value": 255.0, "antialias": True}),
        ((60, 91), {"pad_to_aspect_ratio": True, "fill_value": 7.0, "antialias": True}),
        ((60, 91), {"antialias": True}),
    ],
    ids=str,
)
def test_resizing_equals_keras(
    shape: tuple[int, ...], size: tuple[int, int], options: dict[str, object]
) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.float32)
    layer = layers.Resizing(*size, **options)
    found, wanted = np.asarray(replace_resizing(layer)(photos)), np.asarray(layer(photos))
    # Of 255: float32 holds seven digits.
    assert np.abs(found - wanted).max() < 1e-3


@pytest.mark.parametrize("options", [{"interpolation": "bicubic"}, {"crop_to_aspect_ratio": True}])
def test_unsupported_resizing_is_rejected(options: dict[str, object]) -> None:
    with pytest.raises(Failure, match="can't be exported"):
        replace_resizing(layers.Resizing(75, 75, name="odd", **options))
