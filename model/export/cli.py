"""The `export-model` command."""

import os
from pathlib import Path

import click

from dataset.utils.cli_options import CONTEXT_SETTINGS, FOLDER


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
