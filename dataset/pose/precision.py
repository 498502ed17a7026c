"""bfloat16 where it is as good: tried beside float32 on some photos, then kept or dropped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dataset.pose.heatmaps import read_points

# What Linux calls processors that multiply bfloat16 themselves; elsewhere it is emulated, slowly.
FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# "flags" on x86-64, "Features" on 64-bit Arm.
STARTS = ("flags", "Features")
CPU_INFO = Path("/proc/cpuinfo")
# Photos that float32 answers alone: fewer would not earn back the building of a second network.
ALONE = 256
# Photos that both see, and the share of their joints that must stay within a pixel.
TRIAL = 64
SHARE, PIXEL = 0.99, 1.0


def has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this machine's processor multiplies bfloat16, as far as CPU_INFO says."""
    try:
        lines = cpu_info.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.split(":", 1)[-1].split() for line in lines if line.startswith(STARTS))
    return any(FLAGS & set(found) for found in flags)


class Tried:
    """A network that answers as one `keras.Model` does, by its bfloat16 twin where that is good.

    After ALONE photos both see the next TRIAL. The twin, which TWIN builds, answers from then on if
    SHARE of the joints over GATE stayed within a PIXEL of the view and it was the faster one.
    """

    def __init__(self, network: keras.Model, twin: Callable[[], keras.Model], gate: float) -> None:
        self.network, self.build_twin, self.gate = network, twin, gate
        self.twin: keras.Model | None = None
        self.decided = False
        self.seen = 0
        self.moved: list[np.ndarray] = []
        self.seconds = np.zeros(2)

    def predict_on_batch(self, photos: np.ndarray) -> Any:
        """Heat maps of PHOTOS."""
        if self.decided:
            return (self.twin or self.network).predict_on_batch(photos)
        self.seen += len(photos)
        if self.seen <= ALONE:
            return self.network.predict_on_batch(photos)
        if self.twin is None:
            self.twin = self.build_twin()
            # The first time builds the graph and says nothing about the speed.
            self.twin.predict_on_batch(photos)
        exact, exact_time = _timed(self.network, photos)
        quick, quick_time = _timed(self.twin, photos)
        self.seconds += exact_time, quick_time
        self.moved.append(_moved(exact, quick, self.gate))
        if self.seen >= ALONE + TRIAL:
            self._decide()
        return exact

    def _decide(self) -> None:
        moved = np.concatenate(self.moved)
        near = bool(len(moved)) and (moved <= PIXEL).mean() >= SHARE
        if not near or self.seconds[1] >= self.seconds[0]:
            self.twin = None
        self.decided = True


def _timed(network: keras.Model, photos: np.ndarray) -> tuple[np.ndarray, float]:
    before = time.perf_counter()
    maps = np.asarray(network.predict_on_batch(photos), np.float32)
    return maps, time.perf_counter() - before


def _moved(exact: np.ndarray, quick: np.ndarray, gate: float) -> np.ndarray:
    """How far joints over GATE move, in pixels of the view: DARK sees shifts of parts of one."""
    one, other = read_points(exact, dark=True), read_points(quick, dark=True)
    distance = np.linalg.norm(one[..., :2] - other[..., :2], axis=-1)
    return distance[one[..., 2] >= gate]
