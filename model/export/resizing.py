"""Keras' antialiased Resizing as two matrix products, for runtimes that have no such operation."""

import tensorflow as tf
from keras import layers

from dataset.errors import Failure


def as_products(layer: layers.Resizing) -> "ProductResizing":
    """A layer that gives what LAYER gives, in operations that every runtime has.

    Raises:
        Failure: LAYER resizes otherwise than bilinearly, or cuts photos to its shape.
    """
    if (
        layer.interpolation != "bilinear"
        or layer.crop_to_aspect_ratio
        or layer.data_format != "channels_last"
    ):
        raise Failure(
            f"the model's layer {layer.name!r} resizes in a way that can't be exported; bilinear,"
            " padded or stretched, channels last, can"
        )
    return ProductResizing(layer)


class ProductResizing(layers.Layer):
    """(batch, any, any, channels) -> (batch, height, width, channels) float32, as LIKE does.

    Bilinear resizing is linear in the pixels: rows' weights times photo times columns' weights,
    which follow in the graph from the photo's height and width. What is padded is never made.
    """

    def __init__(self, like: layers.Resizing) -> None:
        super().__init__(name=like.name, dtype="float32")
        self.size = like.height, like.width
        self.padded_with = like.fill_value if like.pad_to_aspect_ratio else None
        self.antialias = like.antialias

    def call(self, photos: tf.Tensor) -> tf.Tensor:
        """PHOTOS resized."""
        (rows, columns), channels = self.size, photos.shape[-1]
        shape = tf.shape(photos)
        batch, height, width = shape[0], shape[1], shape[2]
        down = self._weights(height, rows, width * rows // columns)
        across = self._weights(width, columns, height * columns // rows)
        lines = tf.reshape(tf.cast(photos, "float32"), [batch, height, width * channels])
        lines = tf.reshape(tf.matmul(down, lines), [batch * rows, width, channels])
        resized = tf.reshape(tf.matmul(across, lines), [batch, rows, columns, channels])
        if self.padded_with is None:
            return resized
        # What of each pixel's weight is not on the photo is on the padding.
        seen = tf.reduce_sum(down, 1)[:, None] * tf.reduce_sum(across, 1)
        return resized + self.padded_with * (1.0 - seen)[:, :, None]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The wanted height and width in place of those in SHAPE."""
        return (shape[0], *self.size, shape[-1])

    def _weights(self, side: tf.Tensor, wanted: int, padded_to: tf.Tensor) -> tf.Tensor:
        """(wanted, side) float32: what each of SIDE pixels adds to each of WANTED ones.

        The triangle kernel of tf.image.resize, widened as it shrinks, each pixel's weights adding
        up to 1 over photo and padding.
        """
        before = 0 if self.padded_with is None else tf.maximum(padded_to - side, 0) // 2
        # Keras pads both ends alike: of an odd number of missing pixels one is never added.
        padded = side + 2 * before
        step = 1.0 / (float(wanted) / tf.cast(padded, "float32"))
        reach = tf.maximum(step, 1.0) if self.antialias else 1.0
        centres = (tf.range(wanted, dtype="float32") + 0.5) * step
        places = tf.cast(tf.range(padded), "float32") + 0.5
        weights = tf.maximum(1.0 - tf.abs(places - centres[:, None]) * (1.0 / reach), 0.0)
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        return weights[:, before : before + side]
