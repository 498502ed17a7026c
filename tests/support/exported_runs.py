"""A run directory as train-model writes it: a small network, and photos of all kinds."""

import csv
import functools
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from PIL import Image

from dataset.images.io import open_photo
from dataset.utils.files import write_json
from model.network import inception

# Of the first convolution, its batch norm and what follows.
FIRST = 3
LABELS = ["рубашка поло", "shirts / tops", "t-shirt", 'dress "A"']
SIZE = 75
KINDS = {
    "colour.jpg": ("RGB", (133, 91)),
    "grey.jpg": ("L", (60, 201)),
    "cmyk.jpg": ("CMYK", (342, 342)),
    "deep.png": ("I;16", (77, 75)),
    "wide.jpg": ("RGB", (901, 41)),
}


def write_photos(folder: Path) -> list[Path]:
    """Write a file of each of KINDS and return the paths."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, (mode, (width, height)) in KINDS.items():
        shape = (-(-height // 9), -(-width // 9))
        patches = rng.integers(0, 256, (*shape, 4), dtype=np.uint8)
        pixels = patches.repeat(9, axis=0).repeat(9, axis=1)[:height, :width]
        if mode == "I;16":
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / name)
        else:
            whole = Image.fromarray(pixels, "CMYK") if mode == "CMYK" else None
            (whole or Image.fromarray(pixels[..., :3]).convert(mode)).save(folder / name)
    return [folder / name for name in KINDS]


def read(path: Path) -> np.ndarray:
    """Return a photo as a batch of one, uint8 array of shape (1, height, width, 3)."""
    return np.asarray(open_photo(path))[None]


@functools.cache
def small_inception() -> keras.Model:
    """Build an Inception-v3 with random weights, once per process; it must not be changed."""
    keras.utils.set_random_seed(1)
    return inception.build_backbone(SIZE, "none")


def small_network(
    temperature: float, policy: str = "float32", layer: str | int = "mixed0"
) -> keras.Model:
    """Build a classifier of raw photos with a truncated Inception-v3 and test-time augmentation.

    Args:
        temperature: The logits are divided by it.
        policy: Keras dtype policy.
        layer: Name or index of the last layer of the backbone.
    """
    keras.utils.set_random_seed(3)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    top = small_inception().layers[layer].name if isinstance(layer, int) else layer
    block = keras.models.clone_model(
        inception.truncate(small_inception(), top),
        clone_function=lambda one: type(one).from_config(one.get_config() | {"dtype": policy}),
    )
    means = layers.GlobalAveragePooling2D()(block.output)
    backbone = keras.Model(block.input, means, name="backbone")
    photos = keras.Input((None, None, 3), dtype="uint8", name="photos")
    boxed = layers.Resizing(
        SIZE, SIZE, pad_to_aspect_ratio=True, fill_value=255.0, antialias=True, dtype="float32"
    )(layers.Rescaling(1.0, dtype="float32")(photos))
    scaled = layers.Rescaling(1 / 127.5, offset=-1.0)(boxed)
    both = layers.Average()([backbone(scaled), backbone(ops.flip(scaled, axis=2))])
    logits = layers.Dense(len(LABELS), dtype="float32")(both)
    probabilities = layers.Softmax(dtype="float32")(
        layers.Rescaling(1 / temperature, dtype="float32")(logits)
    )
    keras.config.set_dtype_policy(before)
    return keras.Model(photos, probabilities, name="classifier")


def calibrate_batch_norms(network: keras.Model, photo: np.ndarray) -> None:
    """Set the statistics of batch normalization to those of a photo, as a training would."""
    for layer in network.get_layer("backbone").layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    network(photo, training=True)


def write_run(folder: Path, data: Path, network: keras.Model) -> None:
    """Write a run directory whose test photos are below a data folder."""
    folder.mkdir()
    network.save(folder / "model.keras")
    write_json({"labels": LABELS}, folder / "labels.json")
    write_json({"options": {"data": str(data)}}, folder / "run.json")
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows((f"test/{name}", LABELS[0]) for name in KINDS)
