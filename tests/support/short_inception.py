"""A short backbone for tests, because building Inception-v3 takes most of their time.

`python -m tests.support.short_inception COMMAND ...` runs a command with it in another process.
"""

from typing import Any

import keras
from keras import layers

import fashion_tagger
from model.network.inception import BLOCK_CHANNELS

# Pixels of a step where the maps get smaller, as they do there.
STRIDES = {"mixed0": 4, "mixed3": 2, "mixed8": 2}
NARROW = 16


def short_inception(weights: None, include_top: bool, input_shape: tuple[int, ...]) -> keras.Model:
    """Build the blocks of `keras.applications.InceptionV3` from two convolutions each."""
    maps = pixels = keras.Input(input_shape)
    for name, channels in BLOCK_CHANNELS.items():
        maps = _convolved(maps, NARROW, 3, STRIDES.get(name, 1), None)
        maps = _convolved(maps, channels, 1, 1, name)
    return keras.Model(pixels, maps, name="inception_v3")


def _convolved(maps: Any, channels: int, side: int, stride: int, name: str | None) -> Any:
    convolution = layers.Conv2D(
        channels, side, stride, "same", use_bias=False, kernel_initializer="he_normal"
    )
    return layers.ReLU(name=name)(layers.BatchNormalization(scale=False)(convolution(maps)))


if __name__ == "__main__":
    keras.applications.InceptionV3 = short_inception
    fashion_tagger.main()
