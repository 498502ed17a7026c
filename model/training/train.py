"""A training on one page: read, learn, look at the test split once, write."""

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import click
import keras
import numpy as np
from tqdm import tqdm

from dataset.errors import BadInput, Failure
from dataset.utils.cli_options import options_as_json
from dataset.utils.files import make_folder, refuse_taken, write_json
from model.data.augmentation import samples_png
from model.data.features import raw_logits
from model.data.loading import Data, Example, find_data
from model.network import inception
from model.reports import run_report
from model.reports.run_results import Judged
from model.training.config import TrainOptions
from model.training.fit import Progress, Scalars
from model.training.stages import HEAD, Learned, learn, name_unreadable

ASKED = "options.json"
# What may change when a training goes on: where things are, and how long it may take.
MOVABLE = {"data", "out", "cache", "seconds", "resume"}


class Resumable(Protocol):
    """Options, a dataclass, of what can be cut off and go on."""

    @property
    def out(self) -> Path: ...

    @property
    def resume(self) -> bool: ...


def train(options: TrainOptions) -> dict[str, Any]:
    """Train as OPTIONS say, write the run folder, and return its figures.

    Until it is done the folder is `<out>.unfinished`, with what `--resume` needs.

    Raises:
        BadInput: no data there, --out is taken, or nothing to resume.
        Failure: one label only, unreadable photos, weights that can't be had, a loss that is NaN.
    """
    began = time.time()
    with run_folder(options) as part:
        data = find_data(options.data)
        if not data.of("test"):
            raise Failure(f"{data.folder}/test has no photos to measure on; build it with some")
        watcher = Watcher(part)
        learned = learn(data, options, part, watcher)
        watcher.close()
        network = learned.judging(options)
        judged = judge(data, network, learned, options, watcher)
        return write_run(part, judged, network, time.time() - began)


@contextmanager
def run_folder(options: Resumable) -> Iterator[Path]:
    """`begin`, and `finish` where all went well; a training that learned nothing leaves nothing."""
    part = begin(options)
    try:
        yield part
    except BaseException:
        if not any(part.rglob("*.npz")):
            shutil.rmtree(part, ignore_errors=True)
        raise
    finish(part, options.out)


def begin(options: Resumable) -> Path:
    """The folder of a training that is not finished yet, made, or found where it goes on.

    Raises:
        BadInput: --out is taken, or --resume has nothing to go on from.
    """
    refuse_taken(options.out, "name a new folder for this run")
    part = options.out.with_name(options.out.name + ".unfinished")
    asked = {n: v for n, v in options_as_json(options).items() if n not in MOVABLE}
    asked = json.loads(json.dumps(asked))
    if options.resume:
        _refuse_other(part, asked)
        return part
    if part.exists():
        raise BadInput(
            f"{part} is a training that was cut off; go on with --resume, or remove the folder"
        )
    make_folder(part, options.out)
    write_json(asked, part / ASKED)
    return part


def _refuse_other(part: Path, asked: dict[str, Any]) -> None:
    try:
        before = json.loads((part / ASKED).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--resume: {part} is no training that was cut off; leave --resume out to begin one"
        ) from error
    other = [name for name in asked if before.get(name) != asked[name]]
    if other:
        said = ", ".join(f"{name} was {before.get(name)!r}" for name in other)
        raise BadInput(f"--resume: {part} was begun with other options: {said}")


def judge(
    data: Data, network: keras.Model, learned: Learned, options: TrainOptions, watcher: "Watcher"
) -> Judged:
    """What NETWORK, pixels -> logits, says of the validation and test photos, and how it came."""
    unreadable = dict(learned.unreadable)
    found: dict[str, tuple[list[Example], np.ndarray]] = {}
    for split in ("validation", "test"):
        new: dict[str, str] = {}
        found[split] = raw_logits(network, data, split, new)
        said = {path: new[path] for path in new if path not in unreadable}
        name_unreadable(data, said, watcher)
        unreadable |= new
    if not found["test"][0]:
        raise Failure(f"none of the photos in {data.folder}/test can be read")
    stages = list(learned.stages.values())
    border = stages[0].done if len(stages) > 1 else None
    kept = list(learned.stages).index(learned.kept)
    counts = {split: len(some) for split, some in learned.examples.items()}
    return Judged(
        folder=data.folder,
        labels=data.labels,
        test=found["test"][0],
        test_logits=found["test"][1],
        validation=found["validation"][0],
        validation_logits=found["validation"][1],
        history=joined_history(stages),
        best=sum(stage.done for stage in stages[:kept]) + stages[kept].best,
        options={name: v for name, v in options_as_json(options).items() if name != "resume"},
        seed=options.seed,
        border=border,
        figures={
            "counts": counts | {"test": len(found["test"][0])},
            "unreadable": unreadable,
            "kept": learned.kept,
        },
        facts={"backend": keras.backend.backend(), **learned.said},
        samples=samples_png(data, learned.examples["train"], options.augmentation, options.seed),
    )


def joined_history(stages: list[Progress]) -> dict[str, list[float]]:
    """The values of STAGES, one after the other; a stage that lacks a name has NaN there."""
    names = dict.fromkeys(name for stage in stages for name in stage.history)
    return {
        name: [v for s in stages for v in s.history.get(name, [math.nan] * s.done)]
        for name in names
    }


def write_run(part: Path, judged: Judged, network: keras.Model, seconds: float) -> dict[str, Any]:
    """Write the model and its papers into PART, and return its figures."""
    inception.finished(network, judged.temperature).save(part / "model.keras")
    write_json({"labels": list(judged.labels)}, part / "labels.json")
    facts = {**judged.facts, "seconds": round(seconds, 1)}
    return run_report.write(part, replace(judged, facts=facts))


def finish(part: Path, out: Path) -> None:
    """Remove from PART what only --resume needs, and give it its name OUT."""
    if out.exists():
        out.rmdir()
    part.rename(out)
    # States of stages and folds, wherever they stand; nothing else that is kept is of this kind.
    for path in out.rglob("*.npz"):
        path.unlink()
    (out / ASKED).unlink(missing_ok=True)


class Watcher:
    """Shows how a training goes: a bar for the head's quick epochs, a line for the others.

    FOLDER takes TensorBoard's logs. A QUIET one says nothing but the lines of slow epochs.
    """

    def __init__(self, folder: Path, quiet: bool = False) -> None:
        self.scalars, self.quiet = Scalars(folder / "logs"), quiet
        self.bar: tqdm | None = None

    def tell(self, text: str) -> None:
        """TEXT is for people."""
        if not self.quiet:
            click.echo(text, err=text.startswith("left out"))

    def show(self, stage: str, progress: Progress) -> None:
        """Tell of the last epoch of PROGRESS."""
        last = {name: values[-1] for name, values in progress.history.items()}
        self.scalars.write(stage, progress.done, last)
        if stage == HEAD:
            self.bar = self.bar or tqdm(
                total=progress.epochs,
                desc=stage,
                unit=" epochs",
                disable=True if self.quiet else None,
            )
            self.bar.n = progress.done
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in last.items()})
            return
        self.close()
        figures = ", ".join(f"{n.replace('val_', 'validation ')} {v:.3f}" for n, v in last.items())
        left = (progress.epochs - progress.done) * progress.seconds / progress.done
        click.echo(
            f"{stage} {progress.done}/{progress.epochs}: {figures};"
            f" best epoch {progress.best}, about {left / 60:.0f} min left"
        )

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
