"""A run folder put together as train-model does it, of the trunk's first blocks, in a second."""

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
    taps: Sequence[str] = TAPS,
    both: bool = False,
) -> Path:
    """FOLDER with a model of random weights into LABELS; BOTH: it asks both sides of a photo."""
    # Folded after it is cut: most of the time goes into the blocks above.
    trunk = inception.folded(inception.cut(small_inception(), taps[-1]))
    keras.utils.set_random_seed(1)
    features = inception.tapped(trunk, taps)
    width = int(features.output.shape[-1])
    rng = np.random.default_rng(0)
    head = inception.build_head(width, len(labels), rng.random(width), rng.random(width) + 0.1)
    network = inception.join(features, head)
    whole = inception.finished(inception.both_sides(network) if both else network, 0.7)
    folder.mkdir()
    whole.save(folder / "model.keras")
    write_json({"labels": list(labels)}, folder / "labels.json")
    return folder
