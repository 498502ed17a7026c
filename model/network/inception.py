"""The network: raw photos -> letterbox -> Inception-v3 trunk -> taps -> head -> shares.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from dataset.errors import Failure, first_line
from dataset.utils.downloads import PublishedFile, fetch_published

IMAGENET_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET = PublishedFile(
    IMAGENET_FILE,
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/" + IMAGENET_FILE,
    "md5:bcbd6486424b2319ff4ef7d526e38f63",
)
# Where each inception block ends, from the photo to the top, and the channels that leave it.
BLOCKS = {
    "mixed0": 256,
    "mixed1": 288,
    "mixed2": 288,
    **{f"mixed{number}": 768 for number in range(3, 8)},
    "mixed8": 1280,
    "mixed9": 2048,
    "mixed10": 2048,
}
TOP = "mixed10"
# Standard deviations of trunk outputs below this are noise that must not be blown up.
LEAST_SPREAD = 1e-3


def build_trunk(size: int, weights: str) -> keras.Model:
    """(batch, size, size, 3) float32 in [-1, 1] -> maps of `mixed10`, (batch, h, w, 2048).

    WEIGHTS: `imagenet`, `none`, or the path of a Keras weights file without top.

    Raises:
        Failure: the weights can't be had, or don't fit.
    """
    trunk = keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    if weights != "none":
        _load(trunk, weights_file(weights))
    return trunk


def _load(trunk: keras.Model, path: Path) -> None:
    try:
        trunk.load_weights(str(path))
    # Keras and h5py raise these for a file of another kind or another network.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"--weights {path} are no weights of Keras' InceptionV3 without top:"
            f" {first_line(error)}"
        ) from error


def weights_file(weights: str) -> Path:
    """The file that WEIGHTS, `imagenet` or a path, means; ImageNet's is where Keras keeps it.

    Raises:
        Failure: it is not there and can't be fetched.
    """
    if weights != "imagenet":
        return Path(weights)
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    instead = "name it with --weights PATH, or train from nothing with --weights none"
    return fetch_published(IMAGENET, folder, instead)


def cut(trunk: keras.Model, top: str) -> keras.Model:
    """TRUNK up to the block TOP, its layers shared."""
    return keras.Model(trunk.input, trunk.get_layer(top).output, name="trunk")


def folded(trunk: keras.Model, precision: str = "float32") -> keras.Model:
    """TRUNK with each batch normalisation, frozen, inside the convolution before it.

    The same function with fewer steps; what is trained of it trains with frozen statistics.
    PRECISION, a Keras dtype policy, is of the layers' work; weights stay float32.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, layers.BatchNormalization):
            return layers.Identity(name=layer.name, dtype=precision)
        config = layer.get_config() | {"dtype": precision}
        if isinstance(layer, layers.Conv2D):
            config["use_bias"] = True
        return type(layer).from_config(config)

    twin = keras.models.clone_model(
        trunk, clone_function=clone, call_function=lambda layer, *args, **_: layer(*args)
    )
    norms = _numbered(trunk, layers.BatchNormalization)
    for convolution, norm in zip(_numbered(trunk, layers.Conv2D), norms, strict=True):
        kernel, *bias = convolution.get_weights()
        beta, mean, variance = norm.get_weights()
        scale = 1 / np.sqrt(variance + norm.epsilon)
        shift = beta + (sum(bias) - mean) * scale
        twin.get_layer(convolution.name).set_weights([kernel * scale, shift])
    return twin


def _numbered(trunk: keras.Model, kind: type) -> list[keras.layers.Layer]:
    """TRUNK's layers of KIND as they were made: each convolution just before its norm."""
    found = [layer for layer in trunk.layers if isinstance(layer, kind)]
    return sorted(found, key=lambda layer: int("0" + re.sub(r".*?(\d*)$", r"\1", layer.name)))


def tapped(trunk: keras.Model, taps: Sequence[str]) -> keras.Model:
    """Pixels, (batch, size, size, 3) in [0, 255] -> (batch, width) float32: means over TAPS' maps.

    The trunk sees them in [-1, 1]; the taps stand beside one another in the order given.
    """
    pixels = keras.Input(trunk.input.shape[1:], name="pixels")
    several = keras.Model(trunk.input, [trunk.get_layer(tap).output for tap in taps], name="trunk")
    maps = several(layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(pixels))
    means = [
        layers.GlobalAveragePooling2D(dtype="float32", name=f"mean_{tap}")(one)
        for tap, one in zip(taps, maps if isinstance(maps, list) else [maps], strict=True)
    ]
    joined = layers.Concatenate(name="taps")(means) if len(means) > 1 else means[0]
    return keras.Model(pixels, joined, name="features")


def train_blocks(features: keras.Model, count: int | None) -> None:
    """Let the top COUNT inception blocks of FEATURES' trunk learn, or all of it (None)."""
    trunk = features.get_layer("trunk")
    trunk.trainable = True
    there = [name for name in BLOCKS if any(layer.name == name for layer in trunk.layers)]
    if count is None or count >= len(there):
        return
    last = there[len(there) - count - 1]
    for layer in keras.Model(trunk.input, trunk.get_layer(last).output).layers:
        layer.trainable = False


def build_head(
    width: int, classes: int, mean: np.ndarray | None = None, spread: np.ndarray | None = None
) -> keras.Model:
    """(batch, width) float32 trunk outputs -> (batch, classes) float32 logits.

    MEAN and SPREAD, (width,): of the outputs over the train photos, which the head levels first.
    """
    outputs = keras.Input((width,), name="trunk_outputs")
    level = layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, name="level"
    )
    values = level(outputs) if mean is not None else outputs
    values = layers.Dropout(0.3, name="dropout")(values)
    logits = layers.Dense(classes, dtype="float32", name="labels")(values)
    head = keras.Model(outputs, logits, name="head")
    if mean is not None and spread is not None:
        # The sum of many levelled outputs must not grow with their number.
        room = np.maximum(spread, LEAST_SPREAD) ** 2 * max(1.0, width / 1000)
        level.set_weights([mean, room])
    return head


def join(features: keras.Model, head: keras.Model) -> keras.Model:
    """FEATURES and HEAD as one: pixels, (batch, size, size, 3) in [0, 255] -> logits."""
    pixels = keras.Input(features.input.shape[1:], name="pixels")
    return keras.Model(pixels, head(features(pixels)), name="network")


def both_sides(network: keras.Model) -> keras.Model:
    """NETWORK, pixels -> logits, asked of each photo and of its mirror image: the mean of both."""
    pixels = keras.Input(network.input.shape[1:], name="pixels")
    mirrored = keras.ops.flip(pixels, axis=2)
    mean = layers.Average(dtype="float32", name="both_sides")([network(pixels), network(mirrored)])
    return keras.Model(pixels, mean, name="both_sides")


def letterbox_layer(size: int) -> keras.layers.Layer:
    """(batch, any, any, 3) float32 -> (batch, size, size, 3) float32: fitted in, on white 255."""
    return layers.Resizing(
        size, size, pad_to_aspect_ratio=True, fill_value=255.0, antialias=True, name="letterbox"
    )


def finished(network: keras.Model, temperature: float) -> keras.Model:
    """NETWORK for raw photos, (batch, any, any, 3) uint8 -> (batch, classes) shares that sum to 1.

    The photos are letterboxed on white as build-dataset does; the logits are divided by
    TEMPERATURE (Guo et al., "On Calibration of Modern Neural Networks", 2017).
    """
    photos = keras.Input((None, None, 3), dtype="uint8", name="photos")
    size = network.input.shape[1]
    # Resizing pads in the dtype that it is given, and fails for uint8.
    raw = layers.Rescaling(1.0, name="as_float")(photos)
    # Its own default, training=True, would be handed on to every later layer (keras-hub 2776).
    boxed = letterbox_layer(size)(raw, training=False)
    logits = network(boxed)
    shares = layers.Softmax(dtype="float32", name="shares")(
        layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    )
    return keras.Model(photos, shares, name="classifier")
