"""A run's model taken apart, to ask for what it says of photos and what its trunk saw in them."""

from dataclasses import dataclass

import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.downloads import file_digest
from model.inference.saved_run import Run
from model.network import dtype, inception

BATCH = 32


@dataclass(frozen=True)
class Looked:
    """Network outputs for n images.

    With test-time augmentation, the logits are means over both views; the backbone outputs are
    those of the unmirrored view.

    Attributes:
        outputs: Backbone outputs that the head reads, float32 array of shape (n, width).
        logits: Calibrated logits, float32 array of shape (n, classes).
    """

    outputs: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Judge:
    """A run's network that works in the precision that suits this machine.

    `network`: pixels -> [outputs, logits], `features`: pixels -> outputs alone. `key`: unlike ones
    for what answers unlike.
    """

    network: keras.Model
    features: keras.Model
    labels: tuple[str, ...]
    size: int
    key: str
    precision: str

    def look(self, pixels: np.ndarray) -> Looked:
        """What is seen in PIXELS, (n, size, size, 3) uint8, as `data.boxed` makes them.

        Raises:
            Failure: the answers are no numbers.
        """
        outputs, logits = _asked(self.network, pixels)
        return Looked(outputs, logits)

    def outputs(self, pixels: np.ndarray) -> np.ndarray:
        """Return only the backbone outputs of `look`, a float32 array of shape (n, width).

        Raises:
            Failure: The outputs are not finite.
        """
        (found,) = _asked(self.features, pixels)
        return found


def _asked(network: keras.Model, pixels: np.ndarray) -> list[np.ndarray]:
    """What NETWORK says of PIXELS, (n, size, size, 3) uint8: arrays of n rows float32."""
    parts = []
    for start in range(0, len(pixels), BATCH):
        some = pixels[start : start + BATCH]
        # A graph is built for each number of photos: they are filled up to a power of two.
        wanted = 1 << (len(some) - 1).bit_length()
        full = np.concatenate([some, np.zeros((wanted - len(some), *some.shape[1:]), np.uint8)])
        found = network.predict_on_batch(full)
        several = found if isinstance(found, list) else [found]
        parts.append([np.asarray(one, np.float32)[: len(some)] for one in several])
    joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
    if not all(np.isfinite(one).all() for one in joined):
        raise Failure("the model answers photos with numbers that are not finite; train it anew")
    return joined


def open_judge(run: Run, asked: str = "auto") -> Judge:
    """The judge of RUN, in the precision ASKED for.

    Raises:
        Failure: the model is put together in another way than train-model does it.
    """
    parts = {layer.name: layer for layer in _networks(run.network)}
    try:
        features, head = parts["features"], parts["head"]
        heat = run.network.get_layer("temperature").scale
    except (KeyError, ValueError) as error:
        raise Failure(
            f"{run.folder}/model.keras has no part called {error}: it is of another version of"
            " train-model; train it again"
        ) from error
    both = "both_sides" in parts
    digest = file_digest(run.folder / "model.keras", "sha256:" + 16 * "-").partition(":")[2]

    def build(policy: str) -> keras.Model:
        return features if policy == "float32" else _working_in(features, policy)

    working, chosen = dtype.choose(build, asked)
    network = _answering(working, head, float(heat), both)
    key = f"{digest}-{chosen.policy}"
    return Judge(network, working, tuple(run.labels), int(features.input.shape[1]), key, chosen.why)


def _networks(network: keras.Model) -> list[keras.Model]:
    """NETWORK and all networks within it."""
    found = [network]
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            found += _networks(layer)
    return found


def _working_in(features: keras.Model, policy: str) -> keras.Model:
    """FEATURES whose trunk works in POLICY."""
    taps = [
        layer.name.removeprefix("mean_")
        for layer in features.layers
        if layer.name.startswith("mean_")
    ]
    trunk = features.get_layer("trunk")

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": policy})

    twin = keras.models.clone_model(trunk, clone_function=clone)
    twin.set_weights(trunk.get_weights())
    return inception.tapped(twin, taps)


def _answering(features: keras.Model, head: keras.Model, scale: float, both: bool) -> keras.Model:
    """Pixels, (batch, size, size, 3) -> [trunk outputs, logits times SCALE], of BOTH sides."""
    pixels = keras.Input(features.input.shape[1:], name="pixels")
    sides = [pixels, keras.ops.flip(pixels, axis=2)] if both else [pixels]
    outputs = [features(side) for side in sides]
    # The mean of the sides' logits is what was calibrated, not the logits of the mean.
    logits = [head(one) for one in outputs]
    share = 1 / len(sides)
    return keras.Model(pixels, [outputs[0], sum(logits) * (share * scale)])
