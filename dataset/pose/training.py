"""Train a pose network with `keras.Model.fit`, evaluate each epoch and keep the best one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from dataset.errors import BadInput, Failure
from dataset.pose import evaluation
from dataset.pose.annotations import People, hold_out, read_people, read_photos_without_people
from dataset.pose.checkpoints import load_weights, save_weights
from dataset.pose.estimator import PoseEstimator
from dataset.pose.evaluation import (
    crop_metrics,
    detect_in_boxes,
    detect_in_photos,
    mask_iou,
    pck,
)
from dataset.pose.heatmaps import BOX_WEIGHT, MASK_WEIGHT, box_loss, heatmap_loss, mask_loss
from dataset.pose.models import DEFAULT, GATE, SUFFIX, description_path, read_description
from dataset.pose.network import (
    ARCHITECTURES,
    KEY_POINT_UNIT,
    MASK_UNIT,
    build_hrnet,
    is_box_layer,
    is_mask_layer,
    keras_name,
    published_name,
)
from dataset.pose.samples import PoseAugmentation, PoseSamples
from dataset.utils.cli_options import options_as_json
from dataset.utils.files import make_folder, require_new_output, write_atomically
from dataset.utils.keras_backend import (
    assign,
    jit_compile,
    load_state,
    save_state,
    set_seed,
    training_variables,
)
from dataset.utils.plots import save_history_plot

# As published: the learning rate is a tenth after 170 of 210 epochs, and a hundredth after 200.
DECAY_EPOCHS = (170 / 210, 200 / 210)
# PyTorch's value: gradients of heat maps are small compared with Keras' default of 1e-7.
EPSILON = 1e-8
PICTURE_EPOCHS = 10
# Metrics of an epoch: PCK, mean IoU of the masks, and mean IoU of the crops with a box head.
FIGURES = "PCK", "IoU", "crop"
STATE, WEIGHTS = "state.npz", f"pose{SUFFIX}"


@dataclass(frozen=True)
class PoseTrainOptions:
    """Options of `train-pose`; its help describes each.

    Attributes:
        annotations: COCO JSON files.
        images: Folder of the images of each, or one for all.
        out: Output folder.
        validation: Annotation files for the evaluation; empty to hold out a part of the images.
        validation_images: Folders of their images; empty for `images`.
        model: Name of the architecture.
        size: Height and width of the input in pixels.
        epochs: Number of epochs.
        batch_size: People per step.
        learning_rate: Initial learning rate.
        whole: Fraction of samples that show the whole image.
        seed: Random seed.
        start: Initial weights.
        without_people: Folder of images without people.
        precision: Precision of the layers, `float32` or `bfloat16`; weights and loss are float32.
        masks_only: Whether the weights that find key points stay as they are.
        boxes_only: Whether the weights that find key points and masks stay as they are, and a box
            head is trained.
        resume: Whether to continue an interrupted training.
    """

    annotations: tuple[Path, ...]
    images: tuple[Path, ...]
    out: Path
    validation: tuple[Path, ...] = ()
    validation_images: tuple[Path, ...] = ()
    model: str = DEFAULT
    size: tuple[int, int] = (192, 192)
    epochs: int = 210
    batch_size: int = 32
    learning_rate: float = 1e-3
    whole: float = 0.4
    seed: int = 0
    start: Path | None = None
    without_people: Path | None = None
    precision: str = "float32"
    masks_only: bool = False
    boxes_only: bool = False
    resume: bool = False


@dataclass
class PoseProgress:
    """Progress of a training.

    Attributes:
        history: Metric -> its value for each finished epoch.
    """

    history: dict[str, list[float]] = field(
        default_factory=lambda: {"loss": [], "PCK": [], "IoU": [], "crop": [], "learning_rate": []}
    )

    @property
    def epochs(self) -> int:
        """Return the number of finished epochs."""
        return len(self.history["loss"])

    @property
    def best(self) -> int:
        """Return the first epoch with the highest sum of PCK and the IoUs of masks and crops."""
        return int(np.argmax(np.sum([self.history[name] for name in FIGURES], axis=0))) + 1


def train_pose(options: PoseTrainOptions) -> dict[str, Any]:
    """Train a network and return the metrics of the best epoch.

    Raises:
        BadInput: The annotations can't be read or have no people, or no masks for `masks_only`;
            the initial weights find no masks, for `boxes_only`; the output folder exists, or there
            is nothing to resume.
        Failure: The weights do not fit, the loss is NaN, or the state can't be restored.
    """
    people, held_out = read_split(options)
    folder, joints = options.without_people, len(people.joints.names)
    empty = read_photos_without_people(folder, joints) if folder else []
    if options.resume:
        check_resumable(options)
    set_seed(options.seed)
    boxes = trains_boxes(options)
    masks = people.has_masks or boxes
    if options.masks_only and not masks:
        raise BadInput(f"--masks-only: no person in {options.annotations[0]} has a segmentation")
    network = build_hrnet(
        ARCHITECTURES[options.model],
        options.size,
        joints,
        precision=options.precision,
        mask=masks,
        box=boxes,
    )
    if options.start:
        load_start(network, options.start, options, joints)
    if options.masks_only or options.boxes_only:
        is_trained = is_box_layer if options.boxes_only else is_mask_layer
        for layer in network.layers:
            layer.trainable = is_trained(layer.name)
    optimizer = keras.optimizers.Adam(options.learning_rate, epsilon=EPSILON)
    losses = [heatmap_loss, mask_loss, box_loss][: len(network.outputs)]
    weights = [0.0, 0.0, 1.0] if options.boxes_only else [1.0, MASK_WEIGHT, BOX_WEIGHT]
    network.compile(
        optimizer,
        losses if masks else heatmap_loss,
        loss_weights=weights[: len(network.outputs)] if masks else None,
        jit_compile=jit_compile(),
    )
    network.optimizer.build(network.trainable_variables)
    progress = restore_state(network, options) if options.resume else create_run_folder(options)
    samples = PoseSamples(
        people.persons,
        people.joints,
        options.size,
        options.batch_size,
        (options.seed,),
        PoseAugmentation(whole_fraction=options.whole),
        empty,
        masks,
        boxes,
    )
    network.fit(
        samples,
        initial_epoch=progress.epochs,
        epochs=options.epochs,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: samples.begin(epoch)),
            keras.callbacks.LearningRateScheduler(
                lambda epoch, _: learning_rate_at(epoch, options)
            ),
            Validation(samples, people, held_out, options, progress),
        ],
        shuffle=False,
        verbose=0,
    )
    best = progress.best
    figures = {name: progress.history[name][best - 1] for name in FIGURES}
    return {"epoch": best, **figures, "epochs": progress.epochs}


def trains_boxes(options: PoseTrainOptions) -> bool:
    """Return whether a box head is trained: a new one, or that of the initial weights.

    With `masks_only`, the input of a box head would change, so the head is dropped.
    """
    has_state = options.resume and (options.out / STATE).is_file()
    weights = options.out / WEIGHTS if has_state else options.start
    if options.boxes_only or options.masks_only or not weights:
        return options.boxes_only
    _, has_box = trained_heads(options, weights)
    return has_box


def trained_heads(options: PoseTrainOptions, weights: Path) -> tuple[bool, bool]:
    """Return whether weights have a mask head and a box head; neither without a description."""
    if not description_path(weights).is_file():
        return False, False
    description = read_description(options.model, weights)
    return description.has_mask, description.has_box


def load_start(network: keras.Model, path: Path, options: PoseTrainOptions, joints: int) -> None:
    """Load initial weights.

    Without a mask head in the file, the exchange unit of the mask begins as that of the key points,
    and the head with random weights; so does a box head.

    Raises:
        BadInput: The description beside the weights can't be read, or they find no masks, for
            `boxes_only`.
        Failure: The weights can't be read or belong to another network.
    """
    has_mask, has_box = trained_heads(options, path)
    if options.boxes_only and not has_mask:
        raise BadInput(f"--boxes-only: {path} finds no masks; train them first: --masks-only")
    if len(network.outputs) == 1 + has_mask + has_box:
        load_weights(network, path)
        return
    plain = build_hrnet(
        ARCHITECTURES[options.model], options.size, joints, mask=has_mask, box=has_box
    )
    load_weights(plain, path)
    # Other layers have names that count the layers of their class.
    known = {layer.name: layer.get_weights() for layer in plain.layers if layer.weights}
    for layer in network.layers:
        name = layer.name
        if not has_mask and published_name(name).startswith(MASK_UNIT):
            name = keras_name(published_name(name).replace(MASK_UNIT, KEY_POINT_UNIT))
        if name in known:
            layer.set_weights(known[name])


class Validation(keras.callbacks.Callback):
    """Evaluate each epoch on held-out people; save the state and the best weights."""

    def __init__(
        self,
        samples: PoseSamples,
        people: People,
        held_out: People,
        options: PoseTrainOptions,
        progress: PoseProgress,
    ) -> None:
        super().__init__()
        self.samples, self.people, self.held_out = samples, people, held_out
        self.options, self.progress = options, progress
        self.named = set[Path]()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Evaluate and save an epoch (from 0).

        Raises:
            Failure: The loss is NaN, or none of the images can be read.
        """
        network, options, progress = self.model, self.options, self.progress
        joints = self.people.joints
        if not np.isfinite(logs["loss"]):
            raise Failure(
                "the loss became NaN; continue with --resume and a smaller --learning-rate"
            )
        # One estimator, since each compiles the network.
        estimator = PoseEstimator(network, joints, options.size, GATE)
        detections = detect_in_boxes(estimator, self.held_out.persons)
        _report_unreadable(self.samples.unreadable | detections.unreadable, self.named)
        if not detections.persons:
            raise Failure("none of the validation photos can be read")
        progress.history["loss"].append(logs["loss"])
        progress.history["PCK"].append(pck(detections))
        progress.history["IoU"].append(mask_iou(detections))
        progress.history["crop"].append(self._crop_iou(estimator))
        progress.history["learning_rate"].append(learning_rate_at(epoch, options))
        save_epoch(network, self.people, options, progress)
        _show(progress, options)
        if (epoch + 1) % PICTURE_EPOCHS == 0 or epoch + 1 == options.epochs:
            picture = evaluation.detection_grid(detections.persons, detections.points, joints, GATE)
            picture.save(options.out / f"predictions-{epoch + 1:03}.png")
        names = ("loss", *FIGURES[: len(network.outputs)])
        save_history_plot(options.out / "curves.png", progress.history, progress.best, names)

    def _crop_iou(self, estimator: PoseEstimator) -> float:
        """Return the mean IoU of crops in whole images with a box head; 0 without one."""
        if len(self.model.outputs) < 3:
            return 0.0
        detections, crops = detect_in_photos(estimator, self.held_out.persons)
        return crop_metrics(detections.persons, crops)["mean_box_iou"]


def read_split(options: PoseTrainOptions) -> tuple[People, People]:
    """Read the people for training and for validation, who share no image.

    Raises:
        BadInput: One of the two is empty.
    """
    people = read_people(options.annotations, options.images)
    if options.validation:
        folders = options.validation_images or options.images
        held_out = read_people(options.validation, folders, people.joints)
    else:
        people, held_out = hold_out(people, options.seed)
    for files, group in ((options.annotations, people), (options.validation, held_out)):
        if group.missing:
            click.echo(
                f"missing photos: {len(group.missing)}, for example {group.missing[0]}", err=True
            )
        if not group.persons:
            raise BadInput(
                f"{(files or options.annotations)[0]} has no people with annotated joints or a mask"
                f" and an image in {options.images[0]}, or too few to hold some out for validation"
            )
    return people, held_out


def learning_rate_at(epoch: int, options: PoseTrainOptions) -> float:
    """Return the learning rate of an epoch (from 0): a tenth after each decay."""
    return options.learning_rate * 0.1 ** sum(
        epoch >= round(part * options.epochs) for part in DECAY_EPOCHS
    )


def _report_unreadable(unreadable: dict[Path, str], reported: set[Path]) -> None:
    """Print images that can't be read, each once."""
    for path in sorted(set(unreadable) - reported):
        click.echo(f"excluded {path}: {unreadable[path]}", err=True)
    reported |= set(unreadable)


def create_run_folder(options: PoseTrainOptions) -> PoseProgress:
    """Create the output folder.

    Raises:
        BadInput: It exists, or can't be created.
    """
    require_new_output(options.out, "name a new folder, or continue with --resume")
    make_folder(options.out, options.out)
    return PoseProgress()


def check_resumable(options: PoseTrainOptions) -> None:
    """Raise `BadInput` if the output folder has no interrupted training."""
    path, folder = options.out / STATE, options.out
    if path.is_file() or (
        folder.is_dir() and all(_is_own_file(entry.name) for entry in folder.iterdir())
    ):
        return
    raise BadInput(f"--resume: {path} is missing; remove --resume to start a new training")


def restore_state(network: keras.Model, options: PoseTrainOptions) -> PoseProgress:
    """Restore a network and its optimizer to the last finished epoch.

    Raises:
        BadInput: The training had other options.
        Failure: The state file is broken.
    """
    path = options.out / STATE
    if not path.is_file():
        # Interrupted before the first epoch was finished.
        return PoseProgress()
    metadata, values = load_state(
        path,
        "start again in another --out, from the best epoch with --pose-weights"
        f" {options.out / WEIGHTS}",
    )
    if metadata["options"] != _fixed_options(options):
        raise BadInput(
            f"--resume: {options.out} was started with other options: {metadata['options']}"
        )
    assign(training_variables(network), values)
    return PoseProgress(metadata["history"])


def _is_own_file(name: str) -> bool:
    """Return whether a training writes a file of this name before its first state."""
    return name.startswith((".part-", ".half-")) or name in (
        WEIGHTS,
        description_path(Path(WEIGHTS)).name,
    )


def _fixed_options(options: PoseTrainOptions) -> dict[str, Any]:
    """Return the options that must stay equal when a training is resumed."""
    names = (
        "model",
        "size",
        "batch_size",
        "epochs",
        "whole",
        "seed",
        "learning_rate",
        "masks_only",
        "boxes_only",
    )
    return {n: list(v) if isinstance(v := getattr(options, n), tuple) else v for n in names}


def save_epoch(
    network: keras.Model, people: People, options: PoseTrainOptions, progress: PoseProgress
) -> None:
    """Save the weights of the best epoch, then the state, which marks the epoch as finished."""
    if progress.best == progress.epochs:
        save_weights(network, options.out / WEIGHTS, half=True)
        metadata = describe_weights(network, people, options, progress)
        text = json.dumps(metadata, ensure_ascii=False, indent=2) + "\n"
        write_atomically(description_path(options.out / WEIGHTS), text.encode())
    metadata = {"history": progress.history, "options": _fixed_options(options)}
    values = (keras.ops.convert_to_numpy(variable) for variable in training_variables(network))
    save_state(options.out / STATE, metadata, values)


def describe_weights(
    network: keras.Model, people: People, options: PoseTrainOptions, progress: PoseProgress
) -> dict[str, Any]:
    """Return the content of `pose.json`, which describes the weights and their training."""
    return {
        "architecture": options.model,
        "size": list(options.size),
        "joints": list(people.joints.names),
        "bones": [list(pair) for pair in people.joints.bones],
        "gate": GATE,
        "mask": len(network.outputs) > 1,
        "box": len(network.outputs) > 2,
        **{name: progress.history[name][-1] for name in FIGURES},
        "epoch": progress.epochs,
        "persons": len(people.persons),
        "training": options_as_json(options),
    }


def describe_figures(figures: dict[str, Any]) -> str:
    """Return the metrics of an epoch as text; that of crops with a box head only."""
    crop = f", crop IoU {figures['crop']:.3f}" if figures["crop"] else ""
    return f"PCK {figures['PCK']:.3f}, mask IoU {figures['IoU']:.3f}{crop}"


def _show(progress: PoseProgress, options: PoseTrainOptions) -> None:
    last, best = (
        describe_figures({name: progress.history[name][epoch - 1] for name in FIGURES})
        for epoch in (progress.epochs, progress.best)
    )
    click.echo(
        f"epoch {progress.epochs}/{options.epochs}: loss {progress.history['loss'][-1]:.6f},"
        f" {last}, best epoch {progress.best} with {best}"
    )
