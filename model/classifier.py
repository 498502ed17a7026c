"""The network: raw photos -> letterbox -> Inception-v3 trunk -> softmax over the labels.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
"""

import os
from pathlib import Path

import keras
from keras import layers

from dataset.downloads import Published, fetched
from dataset.errors import Failure, first_line

IMAGENET_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET = Published(
    IMAGENET_FILE,
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/" + IMAGENET_FILE,
    "md5:bcbd6486424b2319ff4ef7d526e38f63",
)


def build_trunk(size: int, weights: str) -> keras.Model:
    """(batch, size, size, 3) float32 in [-1, 1] -> (batch, 2048) float32.

    WEIGHTS: `imagenet`, `none`, or the path of a Keras weights file without top.

    Raises:
        Failure: the weights can't be had, or don't fit.
    """
    trunk = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    if weights != "none":
        path = imagenet_weights() if weights == "imagenet" else Path(weights)
        _load(trunk, path)
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


def imagenet_weights() -> Path:
    """Keras' own ImageNet weights, fetched at the first use to where Keras itself keeps them.

    Raises:
        Failure: they are not there and can't be fetched.
    """
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    instead = "name it with --weights PATH, or train from nothing with --weights none"
    return fetched(IMAGENET, folder, instead)


def letterbox_layer(size: int) -> keras.layers.Layer:
    """(batch, any, any, 3) float32 -> (batch, size, size, 3) float32: fitted in, on white 255."""
    return layers.Resizing(
        size, size, pad_to_aspect_ratio=True, fill_value=255.0, antialias=True, name="letterbox"
    )


def build_features(trunk: keras.Model, size: int, augment: bool) -> keras.Model:
    """Raw photos, (batch, any, any, 3) uint8 in [0, 255] -> (batch, 2048) float32 trunk outputs.

    The photos are letterboxed on white as build-dataset does. AUGMENT: mirror and shift, while
    training only.
    """
    photos = keras.Input((None, None, 3), dtype="uint8", name="photos")
    # Resizing pads in the dtype that it is given, and fails for uint8.
    scaled = letterbox_layer(size)(layers.Rescaling(1.0, name="as_float")(photos))
    scaled = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(scaled)
    if augment:
        scaled = layers.RandomFlip("horizontal", name="mirror")(scaled)
        scaled = layers.RandomTranslation(0.08, 0.08, fill_mode="nearest", name="shift")(scaled)
    return keras.Model(photos, trunk(scaled), name="features")


def join(features: keras.Model, head: keras.Model) -> keras.Model:
    """FEATURES and HEAD as one: raw photos -> (batch, classes) float32 shares that sum to 1."""
    photos = keras.Input((None, None, 3), dtype="uint8", name="photos")
    return keras.Model(photos, head(features(photos)), name="classifier")


def build_head(width: int, classes: int) -> keras.Model:
    """(batch, width) float32 trunk outputs -> (batch, classes) float32 shares that sum to 1."""
    outputs = keras.Input((width,), name="trunk_outputs")
    dropped = layers.Dropout(0.2, name="dropout")(outputs)
    shares = layers.Dense(classes, activation="softmax", dtype="float32", name="labels")(dropped)
    return keras.Model(outputs, shares, name="head")
