"""A short backbone for tests, because building Inception-v3 takes most of their time.

`python -m tests.support.short_inception COMMAND ...` runs a command with it in another process.
"""

import keras
from keras import layers

import fashion_tagger
from model.network.inception import BLOCK_CHANNELS

# Pixels of a step where the maps get smaller, as they do there.
STRIDES = {"mixed0": 4, "mixed3": 2, "mixed8": 2}
NARROW = 16


def short_inception(weights: None, include_top: bool, input_shape: tuple[int, ...]) -> keras.Model:
    """Build the blocks of `keras.applications.InceptionV3` from a convolution each.

    A block has the channels of the original, as copies of a few, which need no further layers.
    """
    maps = pixels = keras.Input(input_shape)
    for name, channels in BLOCK_CHANNELS.items():
        convolution = layers.Conv2D(
            NARROW,
            3,
            STRIDES.get(name, 1),
            "same",
            use_bias=False,
            kernel_initializer="he_normal",
        )
        maps = layers.ReLU()(layers.BatchNormalization(scale=False)(convolution(maps)))
        maps = layers.Concatenate(name=name)([maps] * (channels // NARROW))
    return keras.Model(pixels, maps, name="inception_v3")


if __name__ == "__main__":
    keras.applications.InceptionV3 = short_inception
    fashion_tagger.main()
