"""Training and measuring the steps of a comparison, each once, kept for --resume."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from dataset.errors import Failure
from dataset.pose.models import find_model
from dataset.utils.training_state import load_state, save_state
from dataset.vocabulary import load_vocabulary
from model.ablation.config import BEST, USEFUL, Step
from model.data import augmentation
from model.data.augmentation import Augmentation
from model.data.crops import crop_data, cropped_already
from model.data.features import Views, default_folder, raw_logits
from model.data.loading import Data, targets_of
from model.data.metadata import origins
from model.training.config import TrainOptions
from model.training.linear_probe import head_logits
from model.training.stages import HEAD, Learned, Prepared, learn, name_unreadable, prepare
from model.training.train import Watcher

MIRROR = Views(Augmentation((("mirror", 1.0),)), 2)


@dataclass(frozen=True)
class CompareOptions:
    """What `compare` was asked for: the file of steps, and what all steps share."""

    data: Path
    out: Path
    steps: Path
    weights: str = "imagenet"
    seeds: int = 3
    image_size: int = 299
    precision: str = "auto"
    cache: Path | None = None
    pose: str = "hrnet-small"
    pose_weights: Path | None = None
    vocabulary: Path | None = None
    seed: int = 0
    resume: bool = False


@dataclass(frozen=True)
class Row:
    """A step that was trained and measured. `options` of its trainings, `crop` of its photos.

    `right`: (n,) float, the share of trainings that named each test photo rightly; `validation`:
    mean accuracy there; `accuracies` and `macro_f1`, (seeds,), on the test split; `note`: why not.
    """

    step: Step
    base: str
    options: TrainOptions
    crop: str
    right: np.ndarray
    accuracies: np.ndarray
    macro_f1: np.ndarray
    validation: float
    seconds: float
    note: str = ""

    @property
    def accuracy(self) -> float:
        """Mean over the trainings."""
        return float(self.accuracies.mean())


class Bench:
    """What all steps share: the data, seen through each crop, and the prepared trunk."""

    def __init__(self, data: Data, options: CompareOptions, part: Path) -> None:
        self.options, self.part, self.plain = options, part, data
        self.seen: dict[str, Data] = {"whole": data}
        self.cropped_already = cropped_already(data)
        base = TrainOptions(
            data=options.data,
            out=options.out,
            weights=options.weights,
            image_size=options.image_size,
            precision=options.precision,
            cache=options.cache,
            seconds=0.0,
        )
        self.base = base
        self.prepared: Prepared = prepare(base)
        test = self.prepared.extractor.outputs(data, "test", Views())
        self.examples = test.examples
        self.groups = origins(data.folder, test.examples).groups
        name_unreadable(data, test.unreadable, Watcher(part))

    def run(self, number: int, step: Step, before: Sequence[Row]) -> Row:
        """STEP trained and measured with each seed, or taken from where it was kept."""
        base = _base_of(step, before)
        options = replace(base.options if base else self.base, **step.settings)
        if options.augment == USEFUL:
            options = replace(options, augment=_useful(step, before))
        crop = step.crop or (base.crop if base else "whole")
        name = base.step.name if base else ""
        if crop != "whole" and self.cropped_already:
            note = "the photos are crops already; build with --crop none to compare crops"
            return _empty(step, name, options, crop, note)
        data = self._data(crop)
        count = min(self.options.seeds, step.seeds or self.options.seeds)
        found = [
            self._training(data, replace(options, seed=self.options.seed + seed), number, seed)
            for seed in range(count)
        ]
        right = np.stack([one["right"] for one in found])
        return Row(
            step,
            name,
            options,
            crop,
            right.mean(axis=0),
            right.mean(axis=1),
            np.array([one["macro_f1"] for one in found]),
            float(np.mean([one["validation"] for one in found])),
            float(sum(one["seconds"] for one in found)),
        )

    def _data(self, crop: str) -> Data:
        if crop not in self.seen:
            model = find_model(self.options.pose, self.options.pose_weights)
            vocabulary = load_vocabulary(self.options.vocabulary)
            folder = self.options.cache or default_folder()
            cropped = crop_data(self.plain, crop, model, vocabulary, folder)
            parts = ", ".join(f"{n} {name}" for name, n in sorted(cropped.outcomes.items()))
            click.echo(f"crops for {crop}: {parts}")
            self.seen[crop] = cropped.data
        return self.seen[crop]

    def _training(
        self, data: Data, options: TrainOptions, number: int, seed: int
    ) -> dict[str, Any]:
        """What one training says of the test and validation photos, kept for --resume."""
        folder = self.part / f"step-{number + 1}-seed-{seed + 1}"
        folder.mkdir(exist_ok=True)
        kept = folder / "measured.npz"
        if not kept.exists():
            began = time.monotonic()
            watcher = Watcher(folder, quiet=True)
            learned = learn(data, options, folder, watcher, self.prepared)
            watcher.close()
            found = {
                split: self._answers(data, learned, options, split)
                for split in ("test", "validation")
            }
            said = {"seconds": time.monotonic() - began}
            save_state(kept, said, [values for pair in found.values() for values in pair])
            for state in folder.glob("*.npz"):
                if state != kept:
                    state.unlink()
            keras.utils.clear_session(free_memory=True)
        said, values = load_state(kept, f"remove {folder} to train that step again")
        test, targets, validation, wanted = values
        if len(test) != len(self.examples):
            raise Failure(f"{data.folder}/test changed while it was compared; begin anew")
        f1 = precision_recall_fscore_support(
            targets, test, labels=range(len(data.labels)), average="macro", zero_division=0
        )[2]
        return {
            "right": (test == targets).astype(np.float64),
            "macro_f1": float(f1),
            "validation": float((validation == wanted).mean()),
            "seconds": said["seconds"],
        }

    def _answers(
        self, data: Data, learned: Learned, options: TrainOptions, split: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """The classes that LEARNED names for the photos of SPLIT, and those that are right."""
        if learned.kept != HEAD:
            examples, logits = raw_logits(learned.judging(options), data, split, {})
            return logits.argmax(axis=1), targets_of(examples, data.labels)
        views = MIRROR if options.both_sides else Views()
        outputs = self.prepared.extractor.outputs(data, split, views)
        logits = head_logits(learned.head, outputs, learned.taps)
        return logits.argmax(axis=1), outputs.targets


def _base_of(step: Step, before: Sequence[Row]) -> Row | None:
    measured = [row for row in before if not row.note]
    if step.base == BEST:
        return max(measured, key=lambda row: row.validation)
    found = [row for row in before if row.step.name == step.base]
    # A step that could not be measured hands on what it was to change.
    while found and found[0].note:
        found = [row for row in before if row.step.name == found[0].base]
    return found[0] if found else None


def _useful(step: Step, before: Sequence[Row]) -> str:
    """The augmentations that alone raised the validation accuracy of the step that STEP is from."""
    base = _base_of(step, before)
    if base is None:
        return "none"
    parts: list[str] = []
    for row in before:
        changed = set(row.step.settings) == {"augment"} and row.base == base.step.name
        if changed and row.validation > base.validation:
            parts += row.options.augment.split(",")
    return str(augmentation.parse(parts))


def _empty(step: Step, base: str, options: TrainOptions, crop: str, note: str) -> Row:
    nothing = np.zeros(0)
    return Row(step, base, options, crop, nothing, nothing, nothing, 0.0, 0.0, note)
