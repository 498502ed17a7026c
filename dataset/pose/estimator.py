"""Where the joints are: views of photos through the network, and its heat maps read."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from PIL import Image

from dataset.crop import PERSON, choose_crop
from dataset.pose.annotations import JointSet
from dataset.pose.heatmaps import read_points
from dataset.pose.samples import normalised
from dataset.pose.views import look, person_view, to_photo

BATCH = 16
# The first look is blurred: it may propose a person on half the score that the second must give.
FIRST_GATE = 0.5
# Room around the crop box of the first look; it has some already.
CLOSER = 1.1
# A second look must show the person this much larger.
WORTH = 1.1


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
        """Joints (photos, joints, 3): x, y in each photo's pixels, and the score, as VIEWS show."""
        if not photos:
            return np.empty((0, len(self.joints.names), 3))
        seen = np.stack([look(p, v, self.size) for p, v in zip(photos, views, strict=True)])
        points = read_points(self.heat_maps(seen), self.dark)
        for one, view in zip(points, views, strict=True):
            one[:, :2] = to_photo(one[:, :2], view)
        return points

    def find(self, photos: Sequence[Image.Image]) -> np.ndarray:
        """Joints (photos, joints, 3) of the person in each photo, as `points`.

        The whole photo is seen first; where a person fills only a part of it, that part is seen
        again, larger.
        """
        whole = [person_view((0, 0, *photo.size), self.size, widen=1.0) for photo in photos]
        found = self.points(photos, whole)
        again = {
            i: view
            for i, photo in enumerate(photos)
            if (view := self._closer(photo, found[i], whole[i])) is not None
        }
        if again:
            found[list(again)] = self.points([photos[i] for i in again], list(again.values()))
        return found

    def _closer(
        self, photo: Image.Image, points: np.ndarray, view: np.ndarray
    ) -> np.ndarray | None:
        crop = choose_crop(points, self.joints.names, photo.size, self.gate * FIRST_GATE)
        if crop.outcome != PERSON:
            return None
        left, top, right, bottom = crop.box
        closer = person_view((left, top, right - left, bottom - top), self.size, CLOSER)
        gain = np.sqrt(np.linalg.det(view[:, :2]) / np.linalg.det(closer[:, :2]))
        return closer if gain >= WORTH else None
