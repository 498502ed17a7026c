"""bfloat16 is used if the machine supports it and the heat maps stay the same."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dataset.pose import estimator
from dataset.pose.estimator import choose_network, draw_people, has_bfloat16
from dataset.pose.models import find_model


class Network:
    """Returns the views, multiplied by a factor, as heat maps."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.input = keras.KerasTensor((None, 64, 48, 3))

    def __call__(self, views: np.ndarray) -> np.ndarray:
        return views * self.factor


@pytest.mark.parametrize(
    ("factor", "multiplies", "wanted"),
    [(1.01, True, "bfloat16"), (1.1, True, "float32"), (1.01, False, "float32")],
)
def test_the_twin_is_used_where_its_heat_maps_are_near(
    monkeypatch: pytest.MonkeyPatch, factor: float, multiplies: bool, wanted: str
) -> None:
    monkeypatch.setattr(estimator, "has_bfloat16", lambda: multiplies)
    networks = {"float32": Network(1.0), "bfloat16": Network(factor)}
    original: Any = Network(1.0)
    assert choose_network(original, lambda name: networks[name]) is networks[wanted]


@pytest.mark.usefixtures("one_estimator")
def test_the_drawn_people_show_their_joints_to_the_packaged_network() -> None:
    from dataset.pose.checkpoints import load_estimator

    model = find_model("hrnet-small")
    estimator = load_estimator(model)
    views = draw_people(model.size)
    maps, _ = estimator.predict(views)
    assert (maps.max(axis=(1, 2)) >= model.gate).mean() > 0.9
    assert np.array_equal(views, draw_people(model.size))
    for count in range(1, len(views)):
        alone, _ = estimator.predict(views[:count])
        assert np.array_equal(alone, maps[:count]), "heat maps depend on the size of the batch"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor: 0\nflags\t\t: fpu avx512_bf16 avx2\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags : fpu avx2\nmodel name : a bf16 chip\n", False),
        (None, False),
    ],
)
def test_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, has: bool
) -> None:
    monkeypatch.setattr(estimator, "has_gpu", lambda: False)
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert has_bfloat16(file) is has
