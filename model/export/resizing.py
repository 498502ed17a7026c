"""Keras' antialiased Resizing as two matrix products, for runtimes without such an operation."""

import tensorflow as tf
from keras import layers

from dataset.errors import Failure


def replace_resizing(layer: layers.Resizing) -> "MatrixResizing":
    """Return an equal layer that uses operations of every runtime.

    Raises:
        Failure: The layer does not resize bilinearly, or crops to its aspect ratio.
    """
    if (
        layer.interpolation != "bilinear"
        or layer.crop_to_aspect_ratio
        or layer.data_format != "channels_last"
    ):
        raise Failure(
            f"the model's layer {layer.name!r} can't be exported: only bilinear resizing, padded or"
            " stretched, with channels last, is supported"
        )
    return MatrixResizing(layer)


class MatrixResizing(layers.Layer):
    """Resize images of shape (batch, any, any, channels) as a Resizing layer does.

    Bilinear resizing is linear in the pixels: a matrix of weights for the rows times the image
    times a matrix for the columns. The graph computes the weights from the image's height and
    width. The padding is not part of the products.

    Args:
        like: The layer to replace.
    """

    def __init__(self, like: layers.Resizing) -> None:
        super().__init__(name=like.name, dtype="float32")
        self.size = like.height, like.width
        self.fill_value = like.fill_value if like.pad_to_aspect_ratio else None
        self.antialias = like.antialias

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Return the resized images, float32 of shape (batch, height, width, channels)."""
        (rows, columns), channels = self.size, images.shape[-1]
        shape = tf.shape(images)
        batch, height, width = shape[0], shape[1], shape[2]
        row_weights = self._weights(height, rows, width * rows // columns)
        column_weights = self._weights(width, columns, height * columns // rows)
        lines = tf.reshape(tf.cast(images, "float32"), [batch, height, width * channels])
        lines = tf.reshape(tf.matmul(row_weights, lines), [batch * rows, width, channels])
        resized = tf.matmul(column_weights, lines)
        resized = tf.reshape(resized, [batch, rows, columns, channels])
        if self.fill_value is None:
            return resized
        # The rest of each pixel's weight is for the padding.
        coverage = tf.reduce_sum(row_weights, 1)[:, None] * tf.reduce_sum(column_weights, 1)
        return resized + self.fill_value * (1.0 - coverage)[:, :, None]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output for the shape of an input."""
        return (shape[0], *self.size, shape[-1])

    def _weights(self, side: tf.Tensor, target: int, padded_side: tf.Tensor) -> tf.Tensor:
        """Return the weights of the input pixels for each output pixel along one axis.

        The kernel is the triangle of `tf.image.resize`, which is widened when the image shrinks.
        The weights of an output pixel sum to 1 over image and padding.

        Args:
            side: Input pixels.
            target: Output pixels.
            padded_side: Input pixels including padding, if the layer pads.

        Returns:
            Float32 tensor of shape (target, side).
        """
        before = 0 if self.fill_value is None else tf.maximum(padded_side - side, 0) // 2
        # Keras pads both ends equally: of an odd number of missing pixels, one is not added.
        padded = side + 2 * before
        step = 1.0 / (float(target) / tf.cast(padded, "float32"))
        radius = tf.maximum(step, 1.0) if self.antialias else 1.0
        centres = (tf.range(target, dtype="float32") + 0.5) * step
        positions = tf.cast(tf.range(padded), "float32") + 0.5
        distances = tf.abs(positions - centres[:, None])
        weights = tf.maximum(1.0 - distances * (1.0 / radius), 0.0)
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        return weights[:, before : before + side]
