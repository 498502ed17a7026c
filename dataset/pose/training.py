"""Train a pose network with `keras.Model.fit`, measure each epoch and keep the best one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from dataset.errors import BadInput, Failure
from dataset.pose import evaluation
from dataset.pose.annotations import People, hold_back, read_empty, read_people
from dataset.pose.checkpoints import load_weights, save_weights
from dataset.pose.estimator import Estimator
from dataset.pose.evaluation import found_in_boxes, pck
from dataset.pose.heatmaps import heatmap_loss
from dataset.pose.models import DEFAULT, GATE, SUFFIX, description_path
from dataset.pose.network import ARCHITECTURES, build_hrnet
from dataset.pose.samples import Augmentation, Samples
from dataset.utils.cli_options import options_as_json
from dataset.utils.files import make_folder, refuse_taken, write_atomically
from dataset.utils.keras_backend import jit_compile
from dataset.utils.plots import save_history_plot
from dataset.utils.training_state import assign, load_state, save_state, training_variables

# As published: Adam, its rate a tenth after 170 of 210 epochs and a hundredth after 200.
DECAYS = (170 / 210, 200 / 210)
# torch's, and so the published networks': gradients of heat maps are small beside Keras' 1e-7.
EPSILON = 1e-8
PICTURE_EVERY = 10
STATE, WEIGHTS = "state.npz", f"pose{SUFFIX}"


@dataclass(frozen=True)
class PoseTraining:
    """What `train-pose` was asked for. `size`: of the views, height and width in pixels.

    `whole`: share of samples that show the whole photo. `start`: weights to go on from.
    `without_people`: a folder of photos that show nobody, some for each epoch.
    `precision`: of the layers' work, "float32" or "bfloat16"; weights and loss are float32.
    """

    annotations: Path
    images: Path
    out: Path
    validation: Path | None = None
    validation_images: Path | None = None
    model: str = DEFAULT
    size: tuple[int, int] = (192, 192)
    epochs: int = 210
    batch_size: int = 32
    rate: float = 1e-3
    whole: float = 0.4
    seed: int = 0
    start: Path | None = None
    without_people: Path | None = None
    precision: str = "float32"
    resume: bool = False


@dataclass
class Progress:
    """How far a training is. `history`: a value for each finished epoch."""

    history: dict[str, list[float]] = field(
        default_factory=lambda: {"loss": [], "PCK": [], "rate": []}
    )

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.history["loss"])

    @property
    def best(self) -> int:
        """The epoch with the highest PCK, from 1; the first of equals."""
        return int(np.argmax(self.history["PCK"])) + 1


def train_pose(options: PoseTraining) -> dict[str, Any]:
    """Train as OPTIONS say, into OPTIONS.out, and return the figures of the best epoch.

    Raises:
        BadInput: annotations that can't be read, nobody in them, --out taken, nothing to resume.
        Failure: weights that don't fit, a loss that is NaN, a state that can't be resumed.
    """
    people, held_out = read_split(options)
    folder, joints = options.without_people, len(people.joints.names)
    empty = read_empty(folder, joints) if folder else []
    if options.resume:
        refuse_nothing(options)
    keras.utils.set_random_seed(options.seed)
    network = build_hrnet(
        ARCHITECTURES[options.model],
        options.size,
        joints,
        precision=options.precision,
    )
    if options.start:
        load_weights(network, options.start)
    optimizer = keras.optimizers.Adam(options.rate, epsilon=EPSILON)
    network.compile(optimizer, heatmap_loss, jit_compile=jit_compile())
    network.optimizer.build(network.trainable_variables)
    progress = resume(network, options) if options.resume else begin(options)
    samples = Samples(
        people.persons,
        people.joints,
        options.size,
        options.batch_size,
        (options.seed,),
        Augmentation(whole=options.whole),
        empty,
    )
    network.fit(
        samples,
        initial_epoch=progress.epochs,
        epochs=options.epochs,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: samples.begin(epoch)),
            keras.callbacks.LearningRateScheduler(lambda epoch, _: rate_of(epoch, options)),
            Validation(samples, people, held_out, options, progress),
        ],
        shuffle=False,
        verbose=0,
    )
    best = progress.best
    return {"epoch": best, "PCK": progress.history["PCK"][best - 1], "epochs": progress.epochs}


class Validation(keras.callbacks.Callback):
    """Measure each epoch on the people that are held out; save the state and the best weights."""

    def __init__(
        self,
        samples: Samples,
        people: People,
        held_out: People,
        options: PoseTraining,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.samples, self.people, self.held_out = samples, people, held_out
        self.options, self.progress = options, progress
        self.named = set[Path]()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Finish EPOCH, from 0.

        Raises:
            Failure: The loss is NaN, or none of the photos can be read.
        """
        network, options, progress = self.model, self.options, self.progress
        joints = self.people.joints
        if not np.isfinite(logs["loss"]):
            raise Failure("the loss became NaN; --resume with a smaller --rate goes on before that")
        found = found_in_boxes(Estimator(network, joints, options.size), self.held_out.persons)
        _name_unreadable(self.samples.unreadable | found.unreadable, self.named)
        if not found.persons:
            raise Failure("none of the validation photos can be read")
        progress.history["loss"].append(logs["loss"])
        progress.history["PCK"].append(pck(found))
        progress.history["rate"].append(rate_of(epoch, options))
        keep(network, self.people, options, progress)
        _show(progress, options)
        if (epoch + 1) % PICTURE_EVERY == 0 or epoch + 1 == options.epochs:
            picture = evaluation.found_grid(found.persons, found.points, joints, GATE)
            picture.save(options.out / f"predictions-{epoch + 1:03}.png")
        names = ("loss", "PCK")
        save_history_plot(options.out / "curves.png", progress.history, progress.best, names)


def read_split(options: PoseTraining) -> tuple[People, People]:
    """The people to learn from and the people to measure on, who share no photo.

    Raises:
        BadInput: nobody is left on one side, or the two have other joints.
    """
    people = read_people(options.annotations, options.images)
    if options.validation:
        held_out = read_people(options.validation, options.validation_images or options.images)
        if held_out.joints.names != people.joints.names:
            raise BadInput(
                f"{options.validation} has other joints than {options.annotations}; both need the"
                " same, in the same order"
            )
    else:
        people, held_out = hold_back(people, options.seed)
    for file, one in ((options.annotations, people), (options.validation, held_out)):
        if one.missing:
            click.echo(f"missing photos: {len(one.missing)}, such as {one.missing[0]}", err=True)
        if not one.persons:
            raise BadInput(
                f"{file or options.annotations} names nobody with annotated joints whose photo is"
                f" in {options.images}, or too few to hold some back for validation"
            )
    return people, held_out


def rate_of(epoch: int, options: PoseTraining) -> float:
    """The step in EPOCH, from 0: a tenth after each decay."""
    return options.rate * 0.1 ** sum(epoch >= round(part * options.epochs) for part in DECAYS)


def _name_unreadable(found: dict[Path, str], named: set[Path]) -> None:
    """Say which photos of FOUND could not be read; each once, of all epochs."""
    for path in sorted(set(found) - named):
        click.echo(f"left out {path}: {found[path]}", err=True)
    named |= set(found)


def begin(options: PoseTraining) -> Progress:
    """The folder of a new training.

    Raises:
        BadInput: it is there already, or can't be made.
    """
    refuse_taken(options.out, "name a new folder, or go on with --resume")
    make_folder(options.out, options.out)
    return Progress()


def refuse_nothing(options: PoseTraining) -> None:
    """Raise BadInput where OPTIONS.out holds no training that was cut off."""
    path, folder = options.out / STATE, options.out
    if path.is_file() or (folder.is_dir() and all(_is_ours(one.name) for one in folder.iterdir())):
        return
    raise BadInput(f"--resume: {path} is missing; leave --resume out to begin a new training")


def resume(network: keras.Model, options: PoseTraining) -> Progress:
    """Bring NETWORK and its optimizer to the last finished epoch of OPTIONS.out.

    Raises:
        BadInput: it was another training.
        Failure: the state is broken.
    """
    path = options.out / STATE
    if not path.is_file():
        # Killed before the first epoch was done.
        return Progress()
    said, values = load_state(
        path,
        "begin anew in another --out, from the best epoch with --pose-weights"
        f" {options.out / WEIGHTS}",
    )
    if said["options"] != _lasting(options):
        raise BadInput(f"--resume: {options.out} was begun with other options: {said['options']}")
    assign(training_variables(network), values)
    return Progress(said["history"])


def _is_ours(name: str) -> bool:
    """Whether a training writes NAME before its first state."""
    return name.startswith((".part-", ".half-")) or name in (
        WEIGHTS,
        description_path(Path(WEIGHTS)).name,
    )


def _lasting(options: PoseTraining) -> dict[str, Any]:
    """What must be the same when a training is resumed; the data's place may change."""
    names = ("model", "size", "batch_size", "epochs", "whole", "seed", "rate")
    return {n: list(v) if isinstance(v := getattr(options, n), tuple) else v for n in names}


def keep(network: keras.Model, people: People, options: PoseTraining, progress: Progress) -> None:
    """The weights, if this epoch is the best; then the state, which says that the epoch is done."""
    if progress.best == progress.epochs:
        save_weights(network, options.out / WEIGHTS, half=True)
        said = describe(people, options, progress)
        text = json.dumps(said, ensure_ascii=False, indent=2) + "\n"
        write_atomically(description_path(options.out / WEIGHTS), text.encode())
    said = {"history": progress.history, "options": _lasting(options)}
    values = (keras.ops.convert_to_numpy(one) for one in training_variables(network))
    save_state(options.out / STATE, said, values)


def describe(people: People, options: PoseTraining, progress: Progress) -> dict[str, Any]:
    """What `pose.json` says: enough to use the weights, and where they come from."""
    return {
        "architecture": options.model,
        "size": list(options.size),
        "joints": list(people.joints.names),
        "bones": [list(pair) for pair in people.joints.bones],
        "gate": GATE,
        "PCK": progress.history["PCK"][-1],
        "epoch": progress.epochs,
        "persons": len(people.persons),
        "training": options_as_json(options),
    }


def _show(progress: Progress, options: PoseTraining) -> None:
    history, best = progress.history, progress.best
    click.echo(
        f"epoch {progress.epochs}/{options.epochs}: loss {history['loss'][-1]:.6f},"
        f" PCK {history['PCK'][-1]:.3f}, best {history['PCK'][best - 1]:.3f} in epoch {best}"
    )
