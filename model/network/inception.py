"""The network: photos -> letterbox -> Inception-v3 -> feature layers -> head -> probabilities.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
https://arxiv.org/abs/1512.00567.

`choose_precision` chooses the dtype policy: bfloat16 where the machine supports it natively.
"""

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers

from dataset.errors import Failure, first_line
from dataset.pose.estimator import has_bfloat16, keeps_outputs
from dataset.utils.downloads import PublishedFile, fetch_published
from dataset.utils.files import atomic_path

IMAGENET_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET = PublishedFile(
    IMAGENET_FILE,
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/" + IMAGENET_FILE,
    "md5:bcbd6486424b2319ff4ef7d526e38f63",
)
# Inception blocks from the input to the top, with their numbers of output channels.
BLOCK_CHANNELS = {
    "mixed0": 256,
    "mixed1": 288,
    "mixed2": 288,
    **{f"mixed{number}": 768 for number in range(3, 8)},
    "mixed8": 1280,
    "mixed9": 2048,
    "mixed10": 2048,
}
TOP_BLOCK = "mixed10"
# Blocks whose outputs are cached; those below mixed4 detect edges and colours, not garments.
CACHED_BLOCKS = tuple(BLOCK_CHANNELS)[4:]
# Values of --weights that are not paths. `garments`: an Inception-v3 that is cut after its last
# useful block and quantized; its card is garments.md beside it.
IMAGENET_WEIGHTS, GARMENTS, NO_WEIGHTS = NAMED_WEIGHTS = ("imagenet", "garments", "none")
GARMENTS_FILE = Path(__file__).parent / "weights" / "garments.npz"
# Largest absolute value of int8 weights.
INT8_MAX = 127
# Parts of a photo whose features the head reads: all of it, or its upper and lower half as well.
WHOLE, HALVES = "whole", "halves"
PARTS = {WHOLE: 1, HALVES: 3}
# The network of `build_facet_probabilities`, and what it adds to the logits of the labels of other
# facets: their exponentials are 0 in float32, and it can be written in float16.
FACET_PROBABILITIES, EXCLUDED_LOGIT = "facet_probabilities", -1e4
# Lower bound of standard deviations of features: smaller ones are noise, not to be amplified.
MIN_STD = 1e-3
# Values of --precision -> Keras dtype policies. Weights are float32 in all of them.
POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# Images on which the outputs of two precisions are compared.
BATCH_SIZE = 4


def build_backbone(size: int, weights: str) -> keras.Model:
    """Build Inception-v3 without its top.

    Args:
        size: Width and height of the input in pixels.
        weights: One of `NAMED_WEIGHTS`, or the path of a Keras weights file.

    Returns:
        Float32 images (batch, size, size, 3) in [-1, 1] -> maps of the top block: `mixed10`, of
        shape (batch, height, width, 2048), or the last block of `garments`, whose batch
        normalization is folded.

    Raises:
        Failure: The weights can't be downloaded or read, or have other shapes.
    """
    backbone = keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    if weights == GARMENTS:
        return load_quantized(backbone, GARMENTS_FILE)
    if weights != NO_WEIGHTS:
        _load_weights(backbone, weights_file(weights))
    return backbone


def save_quantized(backbone: keras.Model, path: Path) -> None:
    """Save a backbone with int8 kernels, one scale per output channel, and float32 biases.

    Args:
        backbone: A backbone whose batch normalization is folded.
        path: A .npz file.
    """
    arrays: dict[str, np.ndarray] = {"top": np.array(backbone_blocks(backbone)[-1])}
    for index, layer in enumerate(_layers_in_creation_order(backbone, layers.Conv2D)):
        kernel, bias = layer.get_weights()
        scale = np.abs(kernel).max(axis=(0, 1, 2)) / INT8_MAX
        scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
        arrays[f"kernel{index}"] = np.round(kernel / scale).astype(np.int8)
        arrays[f"scale{index}"], arrays[f"bias{index}"] = scale, bias
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_quantized(backbone: keras.Model, path: Path) -> keras.Model:
    """Return the backbone of `save_quantized`, up to its top block.

    Args:
        backbone: A backbone of the same input, with batch normalization.
        path: The file.

    Raises:
        Failure: The file can't be read or has other shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            folded = fold_batch_norms(truncate(backbone, str(arrays["top"])))
            for index, layer in enumerate(_layers_in_creation_order(folded, layers.Conv2D)):
                kernel = arrays[f"kernel{index}"].astype(np.float32) * arrays[f"scale{index}"]
                layer.set_weights([kernel, arrays[f"bias{index}"]])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Failure(f"{path} can't be read: {first_line(error)}; install it again") from error
    return folded


def backbone_blocks(backbone: keras.Model) -> tuple[str, ...]:
    """Return the names of the blocks of a backbone, from the input to the top."""
    names = {layer.name for layer in backbone.layers}
    return tuple(block for block in BLOCK_CHANNELS if block in names)


def _load_weights(backbone: keras.Model, path: Path) -> None:
    try:
        backbone.load_weights(str(path))
    # Errors of Keras and h5py for files of another format or another network.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(
            f"--weights {path}: not weights of Keras' InceptionV3 without top: {first_line(error)}"
        ) from error


def weights_file(weights: str) -> Path:
    """Return the path of a weights file; ImageNet weights are downloaded to Keras' folder.

    Args:
        weights: `imagenet`, `garments` or a path.

    Raises:
        Failure: The download fails.
    """
    if weights == GARMENTS:
        return GARMENTS_FILE
    if weights != IMAGENET_WEIGHTS:
        return Path(weights)
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    remedy = (
        "use --weights garments, which is in the package, name a file with --weights PATH, or train"
        " from scratch with --weights none"
    )
    return fetch_published(IMAGENET, folder, remedy)


def truncate(backbone: keras.Model, top: str) -> keras.Model:
    """Return a backbone up to a block, with shared layers."""
    return keras.Model(backbone.input, backbone.get_layer(top).output, name="backbone")


def fold_batch_norms(backbone: keras.Model, policy: str = "float32") -> keras.Model:
    """Return an equal backbone with batch normalization folded into the convolutions.

    It has fewer operations. If it is trained, the statistics stay frozen.

    Args:
        backbone: A backbone with batch normalization after each convolution, or a folded one, which
            is copied.
        policy: Keras dtype policy of the layers; weights stay float32.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, layers.BatchNormalization):
            return layers.Identity(name=layer.name, dtype=policy)
        config = layer.get_config() | {"dtype": policy}
        if isinstance(layer, layers.Conv2D):
            config["use_bias"] = True
        return type(layer).from_config(config)

    folded = keras.models.clone_model(
        backbone, clone_function=clone, call_function=lambda layer, *args, **_: layer(*args)
    )
    norms = _layers_in_creation_order(backbone, layers.BatchNormalization)
    if not norms:
        folded.set_weights(backbone.get_weights())
        return folded
    convolutions = _layers_in_creation_order(backbone, layers.Conv2D)
    for convolution, norm in zip(convolutions, norms, strict=True):
        kernel, *bias = convolution.get_weights()
        beta, mean, variance = norm.get_weights()
        scale = 1 / np.sqrt(variance + norm.epsilon)
        shift = beta + (sum(bias) - mean) * scale
        folded.get_layer(convolution.name).set_weights([kernel * scale, shift])
    return folded


def _layers_in_creation_order(backbone: keras.Model, kind: type) -> list[keras.layers.Layer]:
    """Return the layers of a class; a convolution and its normalization have the same index."""
    matching = [layer for layer in backbone.layers if isinstance(layer, kind)]
    return sorted(matching, key=lambda layer: int("0" + re.sub(r".*?(\d*)$", r"\1", layer.name)))


def input_side(backbone_side: int, parts: str) -> int:
    """Return width and height of the pixels that a feature network takes.

    Args:
        backbone_side: Width and height of the backbone's input.
        parts: A key of `PARTS`.
    """
    return backbone_side if parts == WHOLE else 2 * backbone_side


def build_feature_network(
    backbone: keras.Model, feature_layers: Sequence[str], parts: str = WHOLE, channels: int = 3
) -> keras.Model:
    """Build a network that returns the global averages of some blocks, concatenated.

    With `halves`, the backbone reads three parts of the pixels: all of them at half of the
    resolution, and the central square of the upper and of the lower half, which hold the garments
    of a standing person. The parts depend on the photo alone.

    With four channels, the last one is the person's opacity, and the backbone reads the photo and
    the person on white.

    Args:
        backbone: Images in [-1, 1] -> maps.
        feature_layers: Names of the blocks, in the order of the result.
        parts: A key of `PARTS`.
        channels: 3 or 4.

    Returns:
        Pixels (batch, side, side, channels) in [0, 255] -> float32 features (batch, width); the
        features of each view follow one another, in the order of `photo_views`. The side is that of
        `input_side`.
    """
    side = int(backbone.input.shape[1])
    double = input_side(side, parts)
    pixels = keras.Input((double, double, channels), name="pixels")
    outputs = [backbone.get_layer(layer).output for layer in feature_layers]
    blocks = keras.Model(backbone.input, outputs, name="backbone")
    averages = [
        layers.GlobalAveragePooling2D(dtype="float32", name=f"mean_{layer}")
        for layer in feature_layers
    ]
    means = []
    for view in photo_views(pixels, side):
        maps = blocks(view)
        maps = maps if isinstance(maps, list) else [maps]
        means += [average(block) for average, block in zip(averages, maps, strict=True)]
    features = layers.Concatenate(name="feature_layers")(means) if len(means) > 1 else means[0]
    return keras.Model(pixels, features, name="features")


def photo_views(pixels: keras.KerasTensor, side: int) -> list[keras.KerasTensor]:
    """Return the inputs of a backbone for photos, in [-1, 1].

    Args:
        pixels: Photos in [0, 255], (batch, height, width, channels).
        side: Width and height of the backbone's input; photos of twice the size are read in parts.

    Returns:
        Tensors (batch, side, side, 3): the views of `view_boxes` of the photo, and if there is an
        opacity, the same views of the person on white.
    """
    scale = layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")
    renderings = [scale(pixels)]
    if pixels.shape[-1] == 4:
        scaled, opacity = scale(pixels[..., :3]), layers.Rescaling(1 / 255)(pixels[..., 3:])
        # White is 1.
        renderings = [scaled, 1 + (scaled - 1) * opacity]
    if pixels.shape[1] == side:
        return renderings
    margins = side // 2, side - side // 2
    parts = [
        layers.AveragePooling2D(2, name="whole"),
        layers.Cropping2D(((0, side), margins), name="upper_half"),
        layers.Cropping2D(((side, 0), margins), name="lower_half"),
    ]
    return [part(rendering) for rendering in renderings for part in parts]


def view_boxes(side: int, parts: str) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom of the views of a photo, in its pixels.

    Args:
        side: Width and height of the backbone's input.
        parts: A key of `PARTS`.
    """
    double = input_side(side, parts)
    whole = (0, 0, double, double)
    if parts == WHOLE:
        return [whole]
    left = side // 2
    return [whole, (left, 0, left + side, side), (left, side, left + side, double)]


def parts_of(features: keras.Model) -> str:
    """Return the parts that a network of `build_feature_network` reads, a key of `PARTS`."""
    backbone = features.get_layer("backbone")
    return WHOLE if features.input.shape[1] == backbone.input.shape[1] else HALVES


def unfreeze_blocks(features: keras.Model, count: int | None) -> None:
    """Make the top blocks of a feature network's backbone trainable, and freeze the others.

    Args:
        features: A network of `build_feature_network`.
        count: Number of blocks; None: all.
    """
    backbone = features.get_layer("backbone")
    backbone.trainable = True
    blocks = backbone_blocks(backbone)
    if count is None or count >= len(blocks):
        return
    last_frozen = blocks[len(blocks) - count - 1]
    for layer in keras.Model(backbone.input, backbone.get_layer(last_frozen).output).layers:
        layer.trainable = False


def build_head(
    width: int, classes: int, mean: np.ndarray | None = None, std: np.ndarray | None = None
) -> keras.Model:
    """Build a head: dropout and a dense layer, on standardized features if `mean` is given.

    Args:
        width: Number of features.
        classes: Number of classes.
        mean: Means of the features of the train split, shape (width,).
        std: Their standard deviations, shape (width,).

    Returns:
        Float32 features (batch, width) -> float32 logits (batch, classes).
    """
    features = keras.Input((width,), name="features")
    standardize = layers.BatchNormalization(
        center=False, scale=False, epsilon=0.0, trainable=False, name="standardize"
    )
    values = standardize(features) if mean is not None else features
    values = layers.Dropout(0.3, name="dropout")(values)
    logits = layers.Dense(classes, dtype="float32", name="labels")(values)
    head = keras.Model(features, logits, name="head")
    if mean is not None and std is not None:
        variance = np.maximum(std, MIN_STD) ** 2 * variance_scale(width)
        standardize.set_weights([mean, variance])
    return head


def variance_scale(width: int) -> float:
    """Return by how much a head divides the variance of its standardized features.

    It keeps the scale of the logits independent of the number of features.

    Args:
        width: Number of features.
    """
    return max(1.0, width / 1000)


def join_head(features: keras.Model, head: keras.Model) -> keras.Model:
    """Join a feature network and a head: pixels (batch, size, size, channels) -> logits."""
    pixels = keras.Input(features.input.shape[1:], name="pixels")
    return keras.Model(pixels, head(features(pixels)), name="network")


def add_tta(network: keras.Model) -> keras.Model:
    """Add test-time augmentation: the mean logits of a photo and its mirror image."""
    pixels = keras.Input(network.input.shape[1:], name="pixels")
    mirrored = keras.ops.flip(pixels, axis=2)
    mean = layers.Average(dtype="float32", name="tta")([network(pixels), network(mirrored)])
    return keras.Model(pixels, mean, name="tta")


def letterbox_layer(size: int) -> keras.layers.Layer:
    """Return a layer that resizes images to fit a square and pads them with white.

    Float32 images of shape (batch, any, any, channels) -> (batch, size, size, channels).
    """
    return layers.Resizing(
        size, size, pad_to_aspect_ratio=True, fill_value=255.0, antialias=True, name="letterbox"
    )


def build_facet_probabilities(
    labels: int, members: Sequence[Sequence[int]], temperatures: Sequence[float]
) -> keras.Model:
    """Build a network of calibrated probabilities for labels by facets.

    Each facet has a softmax over the logits of its labels. The probability of a label that is in
    several facets is the mean of theirs.

    Args:
        labels: Number of labels.
        members: The class indices of each facet.
        temperatures: The logits of each facet are divided by its temperature.

    Returns:
        Logits (batch, labels) -> probabilities (batch, labels).
    """
    logits = keras.Input((labels,), name="logits")
    members = [list(own) for own in members]
    parts = []
    for number, (own, temperature) in enumerate(zip(members, temperatures, strict=True)):
        # Exports have no gather operation in common: other labels get a probability of 0.
        offsets = np.full(labels, EXCLUDED_LOGIT)
        offsets[own] = 0.0
        scaled = layers.Rescaling(
            1 / temperature, offsets.tolist(), dtype="float32", name=f"temperature_{number}"
        )(logits)
        parts.append(layers.Softmax(dtype="float32", name=f"facet_{number}")(scaled))
    total = layers.Add(dtype="float32", name="sum")(parts) if len(parts) > 1 else parts[0]
    counts = np.maximum(1, np.bincount(np.concatenate(members).astype(int), minlength=labels))
    mean = layers.Rescaling((1 / counts).tolist(), dtype="float32", name="mean")(total)
    return keras.Model(logits, mean, name=FACET_PROBABILITIES)


def build_classifier(
    network: keras.Model, temperature: float, facets: keras.Model | None = None
) -> keras.Model:
    """Add letterboxing and calibration to a network.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
    https://arxiv.org/abs/1706.04599.

    Args:
        network: Pixels (batch, size, size, channels) in [0, 255] -> logits.
        temperature: The logits are divided by it, unless there are facets.
        facets: For labels with facets, a network of `build_facet_probabilities`.

    Returns:
        Uint8 photos (batch, any, any, channels) -> probabilities (batch, classes).
    """
    photos = keras.Input((None, None, network.input.shape[-1]), dtype="uint8", name="photos")
    size = network.input.shape[1]
    # Resizing pads in the dtype of its input, and fails for uint8.
    pixels = layers.Rescaling(1.0, name="as_float")(photos)
    # The layer's default, training=True, would be passed on to every later layer (keras-hub 2776).
    pixels = letterbox_layer(size)(pixels, training=False)
    logits = network(pixels)
    if facets is not None:
        return keras.Model(photos, facets(logits), name="classifier")
    scaled = layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logits)
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(scaled)
    return keras.Model(photos, probabilities, name="classifier")


@dataclass(frozen=True)
class PrecisionChoice:
    """A dtype policy and the reason for it."""

    policy: str
    reason: str


def choose_precision(
    reference: keras.Model, build: Callable[[str], keras.Model], precision: str
) -> tuple[keras.Model, PrecisionChoice]:
    """Return a network in the precision that suits this machine.

    `auto` depends on the machine and the weights only, not on the machine's load: mixed bfloat16
    where the processor or GPU supports it and the outputs for fixed inputs stay near float32's.

    Args:
        reference: A network in float32, (batch, size, size, channels) in [0, 255] -> outputs.
        build: Policy -> an equal network in that policy.
        precision: A key of POLICIES, or `auto`.
    """
    if precision != "auto":
        choice = PrecisionChoice(POLICIES[precision], f"{precision}, by option")
        return build(POLICIES[precision]), choice
    if not has_bfloat16():
        reason = "float32: this machine has no native bfloat16"
        return build("float32"), PrecisionChoice("float32", reason)
    candidate = build(POLICIES["bfloat16"])
    pixels = _fixed_pixels(reference.input.shape[1:])
    is_near, difference = keeps_outputs(reference, candidate, pixels)
    if is_near:
        reason = f"bfloat16, which is native to this machine; outputs differ by {difference:.1%}"
        return candidate, PrecisionChoice(POLICIES["bfloat16"], reason)
    reason = f"float32: outputs in bfloat16 would differ by {difference:.1%}"
    return build("float32"), PrecisionChoice("float32", reason)


def _fixed_pixels(shape: Sequence[int]) -> np.ndarray:
    """Return random patches with sharp edges, uint8 array of shape (BATCH_SIZE, *shape)."""
    size, _, channels = shape
    patches = (BATCH_SIZE, 20, 20, channels)
    small = np.random.default_rng(0).integers(0, 256, patches, dtype=np.uint8)
    repeats = -(-size // 20)
    return small.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :size, :size]
