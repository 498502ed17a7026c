"""Where the joints are: views of photos through the network, and its heat maps read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from PIL import Image

from dataset.crop import PERSON, Box, Crop, choose_crop, iou
from dataset.pose.annotations import JointSet
from dataset.pose.heatmaps import read_points
from dataset.pose.precision import Tried
from dataset.pose.samples import normalised
from dataset.pose.views import look, move_places, person_view, to_photo

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
        seen = np.stack([look(p, v, self.size) for p, v in zip(photos, views, strict=True)])
        points = read_points(self.heat_maps(seen), self.dark)
        for one, view in zip(points, views, strict=True):
            move_places(one, partial(to_photo, view=view))
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
