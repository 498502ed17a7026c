"""A run directory with the first blocks of the backbone, as train-model writes it."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from dataset.utils.files import write_json
from model.network import inception
from tests.support.exported_runs import small_inception

TAPS = ("mixed0", "mixed1")


def write_run(
    folder: Path,
    labels: Sequence[str],
    feature_layers: Sequence[str] = TAPS,
    tta: bool = False,
    parts: str = inception.WHOLE,
    channels: int = 3,
) -> Path:
    """Write a run with random weights, with or without test-time augmentation."""
    # Folded after it is cut: most of the time goes into the blocks above.
    backbone = inception.fold_batch_norms(inception.truncate(small_inception(), feature_layers[-1]))
    keras.utils.set_random_seed(1)
    features = inception.build_feature_network(backbone, feature_layers, parts, channels)
    width = int(features.output.shape[-1])
    rng = np.random.default_rng(0)
    head = inception.build_head(width, len(labels), rng.random(width), rng.random(width) + 0.1)
    network = inception.join_head(features, head)
    whole = inception.build_classifier(inception.add_tta(network) if tta else network, 0.7)
    folder.mkdir()
    whole.save(folder / "model.keras")
    write_json({"labels": list(labels)}, folder / "labels.json")
    return folder
