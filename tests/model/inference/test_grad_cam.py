"""Grad-CAM adds up to the logit of the label, for one block or several."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.inference.grad_cam import draw_explanation, heat_map
from model.inference.predictor import load_predictor, load_run
from model.network import inception
from tests.support.saved_runs import write_run


@pytest.mark.parametrize(
    ("blocks", "parts", "channels"),
    [
        (("mixed0",), inception.WHOLE, 3),
        pytest.param(("mixed0", "mixed1"), inception.HALVES, 3, marks=pytest.mark.slow),
        pytest.param(("mixed0", "mixed1"), inception.HALVES, 4, marks=pytest.mark.slow),
    ],
)
def test_the_mean_of_the_heat_map_is_the_logit(
    tmp_path: Path, blocks: tuple[str, ...], parts: str, channels: int
) -> None:
    folder, labels = tmp_path / "run", ["dress", "hat", "polo"]
    run = load_run(write_run(folder, labels, blocks, parts=parts, channels=channels))
    predictor = load_predictor(run, "float32")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (predictor.size, predictor.size, channels), dtype=np.uint8)
    head = predictor.network.get_layer("head")
    features = predictor.extract_features(pixels[None])
    logits = np.asarray(head(features) - head(np.zeros_like(features)))[0]
    for class_index in range(3):
        heat = heat_map(predictor.feature_network, head, pixels, class_index)
        assert heat.shape == pixels.shape[:2]
        assert heat.mean() == pytest.approx(logits[class_index], rel=0.02, abs=0.02)
    with Image.open(io.BytesIO(draw_explanation(predictor, pixels, "hat"))) as picture:
        assert picture.format == "JPEG" and picture.width == 2 * picture.height >= 600
