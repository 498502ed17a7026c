"""bfloat16 answers only where it moves no joint and saves time."""

import time
from pathlib import Path

import numpy as np
import pytest

from dataset.pose.estimator import ALONE, TRIAL, Tried, has_bfloat16
from dataset.pose.heatmaps import draw_targets


class Drawn:
    """Answers with a joint at a place, after some time."""

    def __init__(self, place: float, seconds: float) -> None:
        self.place, self.seconds, self.asked = place, seconds, 0

    def predict_on_batch(self, photos: np.ndarray) -> np.ndarray:
        self.asked += len(photos)
        time.sleep(self.seconds)
        maps = draw_targets(np.array([(self.place, 64, 2.0)]), (32, 32))
        return np.repeat(maps[None], len(photos), axis=0)


def ask(network: Drawn, twin: Drawn, photos: int = ALONE + 2 * TRIAL) -> Tried:
    tried = Tried(network, lambda: twin, 0.3)
    for _ in range(photos // 16):
        tried.predict_on_batch(np.zeros((16, 8, 8, 3), np.float32))
    return tried


@pytest.mark.parametrize(
    ("place", "seconds", "chosen"), [(40.2, 0, True), (44, 0, False), (40.2, 0.02, False)]
)
def test_the_twin_answers_if_it_is_near_and_faster(
    place: float, seconds: float, chosen: bool
) -> None:
    network, twin = Drawn(40, 0.01), Drawn(place, seconds)
    tried = ask(network, twin)
    assert tried.decided
    # 16 more to build its graph.
    assert twin.asked == TRIAL + 16 + (TRIAL if chosen else 0)
    assert network.asked == ALONE + TRIAL + (0 if chosen else TRIAL)


def test_few_photos_build_no_twin() -> None:
    twin = Drawn(40, 0)
    tried = ask(Drawn(40, 0), twin, ALONE)
    assert not tried.decided
    assert twin.asked == 0


def test_photos_without_people_choose_float32() -> None:
    network = Drawn(-500, 0.01)
    assert ask(network, Drawn(-500, 0)).twin is None


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor: 0\nflags\t\t: fpu avx512_bf16 avx2\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags : fpu avx2\nmodel name : a bf16 chip\n", False),
        (None, False),
    ],
)
def test_processors(tmp_path: Path, text: str | None, has: bool) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert has_bfloat16(file) is has
