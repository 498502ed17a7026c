"""The commands `train-model`, `compare` and `export-model`."""

import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.pose.models import DEFAULT, model_names
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER, engine_options
from dataset.utils.files import require_new_run
from model import cli_options


@click.command(
    "train-model",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: train-model --data splits --time-budget 30m --out runs/first",
)
@cli_options.data_option
@cli_options.weights_option
@click.option(
    "--fine-tune",
    type=cli_options.Blocks(),
    default="all",
    show_default=True,
    metavar="N|all",
    help="Number of inception blocks to fine-tune after the linear probe, from the top; 0: the"
    " linear probe only, which takes minutes.",
)
@click.option(
    "--time-budget",
    type=cli_options.Duration(),
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Time budget, which limits the number of epochs: 30m, 1.5h, or none for no limit.",
)
@click.option(
    "--feature-layers",
    default="auto",
    show_default=True,
    metavar="NAMES",
    callback=lambda _ctx, _param, value: cli_options.parse_feature_layers(value),
    help="Inception blocks whose outputs the head reads, such as mixed10 or mixed7+mixed8; auto:"
    " those with the best accuracy on the validation split.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adamw", "adam", "sgd"]),
    default="adamw",
    show_default=True,
    help="AdamW, Adam, or SGD with Nesterov momentum.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Highest learning rate of fine-tuning, or of training from scratch.  [default: 1e-4 for"
    " Adam and AdamW, 5e-3 for SGD; from scratch 1e-3 and 5e-3]",
)
@click.option(
    "--head-learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Highest learning rate of the linear probe.  [default: 1e-3 for Adam and AdamW, 5e-3 for"
    " SGD]",
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="Momentum of SGD.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(min=0),
    default=0.02,
    show_default=True,
    help="Decoupled weight decay.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "step", "constant"]),
    default="cosine",
    show_default=True,
    help="Decay of the learning rate after the warm-up; step: to a tenth at each third.",
)
@click.option(
    "--warmup-epochs",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Epochs in which the learning rate rises to its highest value.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of epochs.  [default: 12 of fine-tuning, 30 from scratch]",
)
@click.option(
    "--head-epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of epochs of the linear probe.  [default: 60; with --fine-tune 0 and fewer"
    " than 1,000 training photos, the probe is solved in closed form, as a ridge classifier]",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Epochs of fine-tuning without a lower validation loss before it stops; 0: no limit.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Photos per step.",
)
@cli_options.size_option
@click.option(
    "--parts",
    type=click.Choice(["whole", "halves"]),
    default="whole",
    show_default=True,
    help="Parts of each photo whose features the head reads: the whole photo, or also its upper and"
    " lower half, which show the garments of a person larger and take three times the time.",
)
@click.option(
    "--augment",
    default="mirror,rotate=15,scale=0.2,colour=0.2",
    show_default=True,
    metavar="TRANSFORMS",
    callback=lambda _ctx, _param, value: cli_options.normalize_augmentation(value),
    help="Random transforms and their strengths: mirror, rotate=DEGREES, scale=FRACTION,"
    " cutout=FRACTION, colour=FRACTION, or none.",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Views of each photo for the linear probe: the original and augmented versions.",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Fraction of each target that is spread over all labels.",
)
@click.option(
    "--mixup",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Alpha of mixup, which mixes pairs of photos; 0: no mixup.",
)
@click.option(
    "--ema/--no-ema",
    default=True,
    show_default=True,
    help="Validate and keep an exponential moving average of the weights, over about an epoch.",
)
@click.option(
    "--class-weights/--no-class-weights",
    default=True,
    show_default=True,
    help="Give each label the same total weight, however many photos it has.",
)
@click.option(
    "--noise-robust",
    is_flag=True,
    help="Train with partly wrong labels, such as hashtags: labels that out-of-fold predictions"
    " contradict get a lower weight, and photos are mixed (mixup 0.2).",
)
@click.option(
    "--tta/--no-tta",
    default=True,
    show_default=True,
    help="Use test-time augmentation: the model predicts each photo and its mirror image, which is"
    " more accurate and takes twice the time.",
)
@cli_options.precision_option
@cli_options.cache_option
@click.option("--out", type=FOLDER, help="New folder of the run.  [default: runs/<date and time>]")
@click.option("--resume", is_flag=True, help="Continue the interrupted training of --out.")
@click.option(
    "--folds",
    type=click.IntRange(min=3),
    metavar="K",
    help="Cross-validate instead: train K times on the train and validation photos, and evaluate"
    " each network on the fold that it was not trained on; the test split is not used."
    "  [default: no cross-validation]",
)
@click.option(
    "--distribute",
    is_flag=True,
    help="Fine-tune on all devices (GPUs) of this machine, or of several: --batch-size photos are"
    " shared by all. It needs Keras' JAX backend.",
)
@cli_options.allow_leaks_option
@cli_options.seed_option
@engine_options
def train_model(
    out: Path | None,
    folds: int | None,
    engine: str,
    workers: int | None,
    gpus: float,
    **values: Any,
) -> None:
    """Train an Inception-v3 classifier, and evaluate it once on the test split.

    First a linear probe is trained on the cached outputs of the frozen backbone; then backbone and
    head are fine-tuned with a low learning rate, until the validation loss stops falling or the
    time budget is used up. Writes model.keras, which takes raw uint8 photos of any size;
    report.html and README.md; metrics.json, predictions.csv and other tables and charts; run.json
    and TensorBoard logs.

    On a multi-label build (build-dataset --multi-label), the labels of each facet
    are a softmax, and facets without a label are ignored.

    --engine ray computes the outputs of the frozen backbone on a cluster; this machine trains.
    """
    if values["resume"] and out is None:
        raise BadInput("--resume: name the interrupted training with --out")
    from dataset.utils import keras_backend

    values["image_size"] = values["image_size"] or cli_options.default_image_size(values["weights"])
    out = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    if values["distribute"]:
        # Only the first process writes the run, and the others would wait for it.
        require_new_run(out, values["resume"])
        keras_backend.start_processes()
    keras_backend.import_backend()
    from dataset.utils.engines import create_engine
    from model.reports.run_report import format_summary
    from model.training.config import TrainOptions
    from model.training.cross_validation import cross_validate
    from model.training.train import train

    process, processes = keras_backend.process_number()
    if processes > 1 and (values["time_budget"] or values["resume"]):
        raise BadInput("several processes need --time-budget none, and no --resume")
    if process:
        # The first process writes the run; the others compute the same.
        temporary = tempfile.TemporaryDirectory(prefix="fashion-tagger-")
        out = Path(click.get_current_context().with_resource(temporary)) / out.name
    options = TrainOptions(out=out, folds=folds or 0, **values)
    options.distribution()
    if options.from_scratch:
        click.echo("Training from scratch: backbone and head are trained together.")
    run = cross_validate if folds else train
    summary = format_summary(run(options, create_engine(engine, workers, gpus)))
    if process:
        return
    click.echo(summary)
    click.echo(f"report: {out}/report.html")
    click.echo(f"metrics: {out}/metrics.json, {out}/predictions.csv")
    if not folds:
        click.echo(f"model: {out}/model.keras")


@click.command(
    "compare",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: fashion-tagger compare --data splits --seeds 5 --out runs/table",
)
@cli_options.data_option
@cli_options.weights_option
@click.option(
    "--steps",
    type=FILE,
    default=cli_options.STEPS_FILE,
    metavar="FILE",
    help="TOML file of steps.  [default: built-in steps; --show-steps prints them]",
)
@click.option("--show-steps", is_flag=True, help="Print the file of steps and exit.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Number of trainings per step, with different seeds.",
)
@cli_options.size_option
@cli_options.precision_option
@cli_options.cache_option
@click.option(
    "--pose",
    type=click.Choice(model_names()),
    default=DEFAULT,
    show_default=True,
    help="Pose network for the crops.",
)
@click.option("--pose-weights", type=FILE, metavar="FILE", help="Weights file of the pose network.")
@click.option("--out", type=FOLDER, help="New folder.  [default: runs/compare-<date and time>]")
@click.option("--resume", is_flag=True, help="Continue the interrupted comparison of --out.")
@cli_options.allow_leaks_option
@cli_options.seed_option
def compare_steps(out: Path | None, show_steps: bool, **values: Any) -> None:
    """Train one change after another on the same split, and measure the effect of each.

    The built-in steps are SGD, Adam, each augmentation alone, the useful ones
    together, a central strip, the person crop, without background, with upper and lower half, and
    fine-tuning. Each step is trained several times and tested against another one. Features of the
    frozen backbone are cached, which makes a second comparison much faster. Writes compare.html
    with its chart as compare.png, and the table as compare.md, compare.csv and compare.json.
    """
    if show_steps:
        click.echo(values["steps"].read_text(encoding="utf-8"), nl=False)
        return
    if values["resume"] and out is None:
        raise BadInput("--resume: name the interrupted comparison with --out")
    if values["weights"] == "none":
        raise BadInput("--weights none: a comparison needs a pre-trained backbone")
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.ablation.compare import compare, format_comparison
    from model.ablation.runner import CompareOptions, read_steps

    values["image_size"] = values["image_size"] or cli_options.default_image_size(values["weights"])
    out = out or Path("runs") / datetime.now().strftime("compare-%Y%m%d-%H%M%S")
    options = CompareOptions(out=out, **values)
    rows = compare(options)
    click.echo(format_comparison(rows, read_steps(options.steps).reference))
    click.echo(f"report: {out}/compare.html")
    click.echo(f"tables: {out}/compare.md, {out}/compare.csv, {out}/compare.json")


@click.command(
    "export-model",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: export-model runs/first --format onnx",
)
@click.argument("run", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["saved_model", "onnx", "litert"]),
    required=True,
    help="Format of the export: a TensorFlow SavedModel (a folder), ONNX, or LiteRT (TensorFlow"
    " Lite).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="New file or folder.  [default: RUN_DIR/saved_model, model.onnx or model.tflite]",
)
@click.option(
    "--photos",
    type=FOLDER,
    help="Folder of photos to verify the export on.  [default: the run's test photos]",
)
def export_model(run: Path, format: str, out: Path | None, photos: Path | None) -> None:
    """Export the model of a run for another runtime, and verify the export.

    The exported model takes raw photos, (batch, height, width, 3) uint8 of any size, returns
    calibrated probabilities, and contains the labels. A model of a build with --background both
    takes the person's mask as a fourth channel. Before it is put in place, it is run on
    photos: if a probability differs from the Keras model's by more than 0.001, nothing is written
    and the exit status is 1. onnx and litert need additional packages: pip install '.[export]'.
    """
    # The exporters are TensorFlow's, whatever backend trained the model.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.export import exporter

    report = exporter.export_model(exporter.ExportOptions(run, format, out, photos))
    seconds = report.verification_seconds
    click.echo(f"verified in {report.runtime} on {report.sample}, in {seconds:.1f} s")
    click.echo(
        f"largest difference of a probability from the Keras model's: {report.difference:.1e}"
        f" (at most {exporter.MAX_DIFFERENCE:g})"
    )
    click.echo(f"model: {report.path}, {report.bytes / 1e6:.1f} MB, in {report.seconds:.1f} s")
