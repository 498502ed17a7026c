"""Photos -> what a run's model sees in them, kept on disk, so that each is looked at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from dataset.images.io import sha256_of
from dataset.utils import keras_backend
from model.data.features import DTYPE, OutputsCache, default_folder
from model.inference.preprocessing import Eyes, Seen, Wanted, why_not
from model.similar.items import Item
from model.similar.sources import Offer

if TYPE_CHECKING:
    from model.inference.predictor import Judge, Looked
    from model.inference.saved_run import Run

CHUNK = 256
# Of what the cache can hold.
LARGEST = np.float32(np.finfo(DTYPE).max)


@dataclass(frozen=True)
class Sight:
    """An item whose photo was looked at: its name in the cache, or why it can't be."""

    item: Item
    name: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Looker:
    """A run's model that looks at photos, cropped as those were that it learned from."""

    run: "Run"
    folder: Path | None = None

    @cached_property
    def judge(self) -> "Judge":
        """The model, taken apart."""
        from model.inference.predictor import open_judge

        return open_judge(self.run)

    @cached_property
    def key(self) -> str:
        """Unlike for what answers unlike."""
        crop = self.run.crop
        built = (self.run.built.get("resize", ""), self.run.built.get("size", ""))
        said = (
            f"{crop.pose} {crop.pose_weights} {crop.crop} {built}"
            if crop.is_enabled
            else f"{built}"
        )
        return f"{self.judge.key}-{sha256_of(said.encode())[:8]}"

    @cached_property
    def cache(self) -> OutputsCache:
        """What was seen, outputs and logits in one row."""
        return OutputsCache(self.folder or default_folder(), f"seen-{self.key}")

    @cached_property
    def _eyes(self) -> Eyes:
        return Eyes(self.run.crop, self.run.built, self.judge.size)

    def look_at(self, offers: Iterator[Offer]) -> Iterator[Sight]:
        """Each of OFFERS, its photo seen and in the cache, in their order."""
        with tqdm(desc="photos", unit="", disable=None) as bar:
            while some := list(islice(offers, CHUNK)):
                yield from self._looked(some)
                bar.update(len(some))

    def _looked(self, offers: Sequence[Offer]) -> list[Sight]:
        with ThreadPoolExecutor() as pool:
            sights = list(pool.map(_named, offers))
        names = [sight.name for sight in sights if sight.name]
        known = self.cache.get(list(dict.fromkeys(names)))
        # The same photo may come twice.
        lacking = {
            sight.name: offer.wanted
            for offer, sight in zip(offers, sights, strict=True)
            if sight.name and sight.name not in known and offer.wanted is not None
        }
        problems = self._see(lacking)
        return [
            replace(sight, name="", problem=problems[sight.name])
            if sight.name in problems
            else sight
            for sight in sights
        ]

    def _see(self, lacking: dict[str, Wanted]) -> dict[str, str]:
        """Look at LACKING, keep what is seen, and say of which not, and why."""
        problems, names = {}, iter(lacking)
        for seen in self._eyes.see(lacking.values()):
            some = dict(zip(islice(names, len(seen)), seen, strict=True))
            problems.update({name: one.problem for name, one in some.items() if one.problem})
            self._keep({name: one for name, one in some.items() if one.pixels is not None})
        return problems

    def _keep(self, some: dict[str, Seen]) -> None:
        if some:
            pixels = [one.pixels for one in some.values() if one.pixels is not None]
            looked = self.judge.look(np.stack(pixels))
            rows = np.hstack([looked.outputs, looked.logits]).clip(-LARGEST, LARGEST)
            self.cache.put(dict(zip(some, rows, strict=True)))

    def seen(self, names: Sequence[str]) -> "Looked":
        """What was seen in the photos NAMES, by their names in the cache."""
        from model.inference.predictor import Looked

        known = self.cache.get(list(dict.fromkeys(names)))
        rows = np.stack([known[name] for name in names]).astype(np.float32)
        classes = len(self.judge.labels)
        return Looked(rows[:, :-classes], rows[:, -classes:])


def open_looker(folder: Path, cache: Path | None = None) -> Looker:
    """The looker of the run in FOLDER, which keeps what it sees in the folder CACHE.

    Raises:
        BadInput: it is no run folder.
        Failure: its model can't be read.
    """
    keras_backend.import_backend()
    from model.inference.saved_run import read_run

    return Looker(read_run(folder), cache)


def _named(offer: Offer) -> Sight:
    """OFFER with its photo's SHA-256, which its name in the cache begins with."""
    item, wanted = offer.item, offer.wanted
    if wanted is None:
        return Sight(item, problem=offer.problem)
    if not item.sha256:
        try:
            item = replace(item, sha256=sha256_of(wanted.read()))
        except (OSError, ValueError) as error:
            return Sight(item, problem=why_not(error))
    box = wanted.box and ",".join(f"{side:.1f}" for side in wanted.box)
    return Sight(item, f"{item.sha256} {box or wanted.zone or ''}")
