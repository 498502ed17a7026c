"""Photos -> pixels as the network sees them -> what its trunk says of them, kept on disk."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from tqdm import tqdm

from model.augment import Augmentation
from model.cache import DTYPE, OutputsCache
from model.classifier import letterbox_layer
from model.data import Data, Example, boxed, digests, read, targets_of

BATCH, CHUNK = 32, 256
NOTHING = Augmentation()


@dataclass(frozen=True)
class Outputs:
    """Trunk outputs of the readable photos of a split. `targets`: (n,) int, places in the labels.

    `values`: (n, views, width) float16, the unchanged photo's first; `unreadable`: path -> reason.
    """

    examples: list[Example]
    values: np.ndarray
    targets: np.ndarray
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Views:
    """How a photo is shown to a frozen trunk: as it is, then AUGMENTATION's draws, COUNT in all.

    Draws hang on the photo and the augmentation alone, so that every later training finds them.
    """

    augmentation: Augmentation = NOTHING
    count: int = 1

    def names(self, seen: str) -> list[str]:
        """A name for each view of the photo SEEN, as `digests`; unlike ones for unlike views."""
        if not self.augmentation:
            return [f"{seen} plain"]
        # A mirror alone has two views, however many are asked for.
        count = min(self.count, 2) if self.augmentation.mirrors_only else self.count
        changed = [f"{seen} {self.augmentation} #{number}" for number in range(1, count)]
        return [f"{seen} plain", *changed]

    def show(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """PIXELS, (size, size, 3) uint8, as the view NAME shows them."""
        if name.endswith(" plain"):
            return pixels
        rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        return self.augmentation.apply(pixels, rng, mirror=int(name.rpartition("#")[2]) % 2 == 1)


@dataclass(frozen=True)
class Extractor:
    """A trunk that is asked for outputs. `features`: pixels, (batch, size, size, 3) -> outputs."""

    features: keras.Model
    cache: OutputsCache

    def outputs(self, data: Data, split: str, views: Views) -> Outputs:
        """What the trunk says of the photos of SPLIT, out of the cache where it is there."""
        unreadable: dict[str, str] = {}
        examples: list[Example] = []
        parts = [np.zeros((0, len(views.names("")), int(self.features.output.shape[-1])), DTYPE)]
        wanted = data.of(split)
        with tqdm(total=len(wanted), desc=f"trunk, {split}", unit=" photos", disable=None) as bar:
            for start in range(0, len(wanted), CHUNK):
                some = wanted[start : start + CHUNK]
                found = self._chunk(data, some, views, unreadable)
                examples += found
                parts += [np.stack(values)[None] for values in found.values()]
                bar.update(len(some))
        targets = targets_of(examples, data.labels)
        return Outputs(examples, np.concatenate(parts), targets, unreadable)

    def _chunk(
        self, data: Data, some: Sequence[Example], views: Views, unreadable: dict[str, str]
    ) -> dict[Example, list[np.ndarray]]:
        shas = digests(data.folder, some, unreadable)
        names = {example: views.names(sha) for example, sha in shas.items()}
        known = self.cache.get([name for mine in names.values() for name in mine])
        lacking = [one for one, mine in names.items() if any(name not in known for name in mine)]
        for batch in self._batches(
            data, {one: names[one] for one in lacking}, views, known, unreadable
        ):
            outputs = np.asarray(self.features.predict_on_batch(np.stack(list(batch.values()))))
            new = dict(zip(batch, outputs.astype(DTYPE), strict=True))
            self.cache.put(new)
            known |= new
        return {
            one: [known[name] for name in mine]
            for one, mine in names.items()
            if one.path not in unreadable
        }

    def _batches(
        self,
        data: Data,
        lacking: Mapping[Example, Sequence[str]],
        views: Views,
        known: Mapping[str, np.ndarray],
        unreadable: dict[str, str],
    ) -> Iterator[dict[str, np.ndarray]]:
        """Views of LACKING that are not KNOWN, name -> pixels, at most BATCH at once."""
        batch: dict[str, np.ndarray] = {}
        size = int(self.features.input.shape[1])
        for example, photo in read(data.folder, list(lacking), partial(boxed, size=size)):
            if isinstance(photo, str):
                unreadable[example.path] = photo
                continue
            for name in lacking[example]:
                if name in known:
                    continue
                batch[name] = views.show(photo, name)
                if len(batch) == BATCH:
                    yield batch
                    batch = {}
        if batch:
            yield batch


def raw_logits(
    network: keras.Model, data: Data, split: str, unreadable: dict[str, str]
) -> tuple[list[Example], np.ndarray]:
    """What NETWORK, pixels -> logits, says of the photos of SPLIT by the saved model's own path.

    (n, classes) float32 for the readable ones; why the others can't be read goes into UNREADABLE.
    """
    size = int(network.input.shape[1])
    letterbox = letterbox_layer(size)
    examples: list[Example] = []
    parts = [np.zeros((0, int(network.output.shape[-1])), np.float32)]
    batch: list[np.ndarray] = []
    for example, photo in read(data.folder, data.of(split), np.asarray):
        if isinstance(photo, str):
            unreadable[example.path] = photo
            continue
        examples.append(example)
        # Photos differ in size, so that each goes through the letterbox alone.
        batch.append(keras.ops.convert_to_numpy(letterbox(photo[None].astype(np.float32)))[0])
        if len(batch) == BATCH:
            parts.append(np.asarray(network.predict_on_batch(np.stack(batch))))
            batch = []
    if batch:
        parts.append(np.asarray(network.predict_on_batch(np.stack(batch))))
    return examples, np.concatenate(parts)
