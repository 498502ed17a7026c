"""bfloat16 where it is as good: tried beside float32 on some photos, then kept or dropped."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dataset.pose.crop import PERSON, Box, Crop, choose_crop, iou
from dataset.pose.heatmaps import (
    decode_points,
    person_view,
    render_view,
    to_image,
    transform_points,
)
from dataset.pose.models import JointSet
from dataset.pose.samples import normalised

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
    one, other = decode_points(exact, dark=True), decode_points(quick, dark=True)
    distance = np.linalg.norm(one[..., :2] - other[..., :2], axis=-1)
    return distance[one[..., 2] >= gate]


BATCH = 16
# The first look is blurred: it may propose a person on half the score that the second must give.
FIRST_GATE = 0.5
# The first look's box has room around it already, more where that look was unsure.
CLOSER = 1.0
# A second look must show the person this much larger.
WORTH = 1.1
# Boxes of two looks that overlap less than this are of two people, or of none.
SAME = 0.4


@dataclass(frozen=True)
class Estimator:
    """A network with what it needs to be asked. `size`: of its views, height and width."""

    network: keras.Model | Tried
    joints: JointSet
    size: tuple[int, int]
    gate: float = 0.3
    flip: bool = False
    dark: bool = False

    def heat_maps(self, seen: np.ndarray) -> np.ndarray:
        """Heat maps (batch, *maps, joints) float32 of SEEN, views (batch, *size, 3) uint8."""
        photos = normalised(seen)
        maps = np.asarray(self.network.predict_on_batch(photos), np.float32)
        if self.flip:
            other = np.asarray(self.network.predict_on_batch(photos[:, :, ::-1]), np.float32)
            other = other[:, :, ::-1][..., self.joints.mirrored]
            # As published: mirrored maps lie a pixel off.
            other[:, :, 1:] = other[:, :, :-1].copy()
            maps = (maps + other) * np.float32(0.5)
        return maps

    def points(self, photos: Sequence[Image.Image], views: Sequence[np.ndarray]) -> np.ndarray:
        """Joints (photos, joints, 7) as `read_points`, in each photo's pixels, as VIEWS show.

        The views are upright.
        """
        if not photos:
            return np.empty((0, len(self.joints.names), 7))
        seen = np.stack([render_view(p, v, self.size) for p, v in zip(photos, views, strict=True)])
        points = decode_points(self.heat_maps(seen), self.dark)
        for one, view in zip(points, views, strict=True):
            transform_points(one, partial(to_image, view=view))
        return points

    def find(self, photos: Sequence[Image.Image]) -> np.ndarray:
        """Joints (photos, joints, 7) of the person in each photo, as `points`.

        The whole photo is seen first; where a person fills only a part of it, that part is seen
        again, larger, and believed when it shows a person in about the same place.
        """
        whole = [person_view((0, 0, *photo.size), self.size, widen=1.0) for photo in photos]
        found = self.points(photos, whole)
        first = [self._crop(one, p, FIRST_GATE) for one, p in zip(found, photos, strict=True)]
        closer = {
            i: person_view(_as_sides(crop.box), self.size, CLOSER)
            for i, crop in enumerate(first)
            if crop.outcome == PERSON
        }
        again = [i for i, view in closer.items() if _gain(whole[i], view) >= WORTH]
        second = self.points([photos[i] for i in again], [closer[i] for i in again])
        for i, points in zip(again, second, strict=True):
            crop = self._crop(points, photos[i], 1.0)
            if crop.outcome == PERSON and iou(crop.box, first[i].box) >= SAME:
                found[i] = points
        return found

    def _crop(self, points: np.ndarray, photo: Image.Image, part_of_gate: float) -> Crop:
        return choose_crop(points, self.joints.names, photo.size, self.gate * part_of_gate)


def _as_sides(box: Box) -> Box:
    """BOX as left, top, width, height."""
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def _gain(one: np.ndarray, other: np.ndarray) -> float:
    """How much larger the view OTHER shows things than the view ONE."""
    return float(np.sqrt(np.linalg.det(one[:, :2]) / np.linalg.det(other[:, :2])))
