"""Photos as a run's model sees them: cropped and fitted as those were that it learned from."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from dataset.errors import DownloadFailed
from dataset.export.rendering import crop_and_resize
from dataset.images.io import Unreadable, open_photo, sha256_of
from dataset.images.quality import measure
from dataset.pose.crop import WHOLE, Box, choose_crop
from dataset.pose.models import PoseModel, find_model
from dataset.selection.candidates import Candidate
from dataset.selection.crops import PoseOptions
from dataset.selection.quality_gates import QualityGates, load_quality_gates
from model.data.loading import boxed

CHUNK = 64


@dataclass(frozen=True)
class Wanted:
    """A photo to be looked at: how its bytes are had, the zone of its tag's garment, or its box.

    `box`: what is kept of it, in its pixels, where that is known already.
    """

    read: Callable[[], bytes]
    zone: str | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Seen:
    """A photo as the model sees it. `pixels`: (size, size, 3) uint8, None where `problem` says why.

    `blank`: why it shows nothing that could be judged, or empty. `again`: it was shown before, its
    crop the same, and is not a second time.
    """

    sha256: str = ""
    pixels: np.ndarray | None = None
    blank: str = ""
    problem: str = ""
    again: bool = False


class Shown:
    """Which photos were shown, the last MOST of them, and for garments of which zone."""

    MOST = 100_000

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str | None, Box | None], None] = OrderedDict()

    def again(self, sha256: str, one: Wanted) -> bool:
        """Whether the photo of ONE, whose bytes have SHA256, was shown before; now it is."""
        key = (sha256, one.zone, one.box)
        if key in self._known:
            self._known.move_to_end(key)
            return True
        self._known[key] = None
        if len(self._known) > self.MOST:
            self._known.popitem(last=False)
        return False


def why_not(error: OSError | ValueError) -> str:
    """Why a photo's bytes can't be had, in words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, DownloadFailed):
        return f"not fetched: {error}"
    return f"can't be read: {getattr(error, 'strerror', None) or error}"


@dataclass
class Eyes:
    """Crops as CROP says, fits as the build BUILT did, and shows at SIZE pixels a side."""

    crop: PoseOptions
    built: dict[str, Any]
    size: int
    gates: QualityGates = field(default_factory=load_quality_gates)

    def see(self, wanted: Iterable[Wanted], shown: Shown | None = None) -> Iterator[list[Seen]]:
        """Each of WANTED, CHUNK at a time; the next are read while one chunk is in use.

        Those that SHOWN has are only told to be that.
        """
        todo = iter(wanted)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            batch = list(islice(todo, CHUNK))
            coming = [pool.submit(_read, one) for one in batch]
            while batch:
                came = [one.result() for one in coming]
                after = list(islice(todo, CHUNK))
                coming = [pool.submit(_read, one) for one in after]
                if shown is not None:
                    came = [
                        _unless_again(one, *pair, shown)
                        for one, pair in zip(batch, came, strict=True)
                    ]
                yield self._shown(batch, list(pool.map(self._open, came)), pool)
                batch = after

    def _open(self, came: tuple[Seen, bytes | None]) -> tuple[Seen, Image.Image | None]:
        seen, data = came
        if data is None:
            return seen, None
        try:
            photo = open_photo(data)
        except Unreadable as error:
            return Seen(seen.sha256, problem=f"broken: {error}"), None
        return Seen(seen.sha256, blank=self._blank(photo, len(data))), photo

    def _blank(self, photo: Image.Image, size: int) -> str:
        """Why PHOTO is no photo of a garment, whatever the model says; as builds leave it out."""
        known = Candidate(0, "", "", 0, photo.width, photo.height, size, quality=measure(photo))
        stopped = self.gates.rejection(known)
        # What is blurred may still show a garment, of which a model can be unsure.
        return ": ".join(stopped) if stopped and stopped[0] != "blurred" else ""

    def _shown(
        self,
        batch: Sequence[Wanted],
        opened: Sequence[tuple[Seen, Image.Image | None]],
        pool: ThreadPoolExecutor,
    ) -> list[Seen]:
        boxes = self._boxes(batch, [photo for _, photo in opened])
        shape = partial(_fitted, built=self.built, size=self.size)
        shown = pool.map(shape, [photo for _, photo in opened], boxes)
        return [
            replace(seen, pixels=pixels) for (seen, _), pixels in zip(opened, shown, strict=True)
        ]

    def _boxes(
        self, batch: Sequence[Wanted], photos: Sequence[Image.Image | None]
    ) -> list[Box | None]:
        boxes = [one.box for one in batch]
        if not self.crop.is_enabled:
            return boxes
        places = [i for i, photo in enumerate(photos) if photo is not None and boxes[i] is None]
        if not places:
            return boxes
        found = self._estimator.find([photos[place] for place in places])
        for place, points in zip(places, found, strict=True):
            photo, zone = photos[place], batch[place].zone
            assert photo is not None
            asked = zone if self.crop.uses_zones else None
            crop = choose_crop(
                points, self._model.joints.names, photo.size, self._model.gate, asked
            )
            boxes[place] = None if crop.outcome == WHOLE else crop.box
        return boxes

    @cached_property
    def _model(self) -> PoseModel:
        return find_model(self.crop.pose, self.crop.pose_weights)

    @cached_property
    def _estimator(self) -> Any:
        from dataset.pose.checkpoints import load_estimator

        return load_estimator(self._model)


def _read(one: Wanted) -> tuple[Seen, bytes | None]:
    try:
        data = one.read()
    except (OSError, ValueError) as error:
        return Seen(problem=why_not(error)), None
    return Seen(sha256_of(data)), data


def _unless_again(
    one: Wanted, seen: Seen, data: bytes | None, shown: Shown
) -> tuple[Seen, bytes | None]:
    if data is None or not shown.again(seen.sha256, one):
        return seen, data
    return replace(seen, again=True), None


def _fitted(
    photo: Image.Image | None, box: Box | None, built: dict[str, Any], size: int
) -> np.ndarray | None:
    """PHOTO's BOX as the network sees it, (size, size, 3) uint8."""
    if photo is None:
        return None
    if built:
        resize, side = built.get("resize", "letterbox"), int(built.get("size", size))
        photo = crop_and_resize(photo, box, side, resize)
    return boxed(photo, size)
