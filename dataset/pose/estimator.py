"""Where the joints are: views of photos through the network, and its heat maps read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageDraw

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
from dataset.utils.keras_backend import gpu_has_bfloat16, has_gpu

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

    network: keras.Model
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


# What Linux calls processors that multiply bfloat16 themselves; elsewhere it is emulated, slowly.
FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# "flags" on x86-64, "Features" on 64-bit Arm.
STARTS = ("flags", "Features")
CPU_INFO = Path("/proc/cpuinfo")
# Outputs may differ from float32's by this share of them, in the root mean square.
MAX_DIFFERENCE = 0.02


def has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether what the backend runs on multiplies bfloat16 itself.

    Args:
        cpu_info: Where the kernel lists the processor's features; py-cpuinfo would start processes
            to read the same file, and psutil does not read them.
    """
    if has_gpu():
        return gpu_has_bfloat16()
    try:
        lines = cpu_info.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.split(":", 1)[-1].split() for line in lines if line.startswith(STARTS))
    return any(FLAGS & set(names) for names in flags)


def keeps_outputs(network: Callable, twin: Callable, inputs: np.ndarray) -> tuple[bool, float]:
    """Return whether TWIN's outputs are near NETWORK's, and by which share of them they differ."""
    exact, quick = (np.asarray(maker(inputs), np.float64) for maker in (network, twin))
    difference = float(np.sqrt(((quick - exact) ** 2).mean() / (exact**2).mean()))
    return difference <= MAX_DIFFERENCE, difference


def choose_network(build: Callable[[str], keras.Model]) -> keras.Model:
    """Return a pose network in bfloat16 where the machine has it and heat maps stay the same.

    The choice depends on the machine and the weights only, not on the machine's load or on photos.

    Args:
        build: Returns the network that works in a precision, float32 or bfloat16.
    """
    network = build("float32")
    if not has_bfloat16():
        return network
    twin = build("bfloat16")
    is_near, _ = keeps_outputs(network, twin, normalised(draw_people(network.input.shape[1:3])))
    return twin if is_near else network


def draw_people(size: tuple[int, int], count: int = 4) -> np.ndarray:
    """Return views (COUNT, *SIZE, 3) uint8 of drawn people; of noise the heat maps are near 0."""
    height, width = size
    views = []
    for number in range(count):
        unit, middle = height * (0.08 + 0.01 * number), width * (0.44 + 0.04 * number)
        view = Image.new("RGB", (width, height), (225 - 20 * number, 215, 190 + 10 * number))
        limb = partial(_limb, ImageDraw.Draw(view), unit, middle)
        for side in (-1, 1):
            reach = side * (1.4 + 0.3 * number)
            limb([(side * 0.6, 4.3), (side * 0.7, 6.3), (side * 0.8, 8.2)], 0.7, "navy")
            limb([(side, 1.8), (reach, 3.2), (reach, 4.6)], 0.5, "peru")
        limb([(0, 1.6), (0, 4.4)], 2.0, "firebrick")
        limb([(0, 0), (0, 1.5)], 0.9, "peru")
        views.append(np.asarray(view))
    return np.stack(views)


def _limb(
    draw: ImageDraw.ImageDraw,
    unit: float,
    middle: float,
    points: Sequence[tuple[float, float]],
    thickness: float,
    colour: str,
) -> None:
    """Draw a line through POINTS, whose x is from the MIDDLE; all lengths are in UNITs."""
    places = [(middle + unit * x, unit * (y + 0.5)) for x, y in points]
    draw.line(places, colour, max(1, round(unit * thickness)), joint="curve")
