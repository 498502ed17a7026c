"""`export-model`: options -> one call -> exit status."""

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
    help="A TensorFlow SavedModel (a folder), ONNX, or LiteRT, which was TensorFlow Lite.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="What to write, nothing that is there.  [default: RUN_DIR/saved_model, model.onnx or"
    " model.tflite]",
)
@click.option(
    "--photos",
    type=FOLDER,
    help="A folder of photos to check the export on.  [default: the run's test photos]",
)
def export_model(run: Path, format: str, out: Path | None, photos: Path | None) -> None:
    """Export the model of a run for other runtimes, and check that it says the same there.

    The export takes raw photos, (batch, height, width, 3) uint8 of any size, gives calibrated
    shares, and has the names of the labels in it. It is run on photos before it is put in place:
    where a share differs by more than 0.001 from the Keras model's, nothing is written and the exit
    status is 1. onnx and litert need packages of their own: pip install '.[export]'.
    """
    # All formats are made by TensorFlow's own exporters, of a model that any backend trained.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.export import exporter

    done = exporter.export_model(exporter.ExportOptions(run, format, out, photos))
    click.echo(f"checked in {done.checked_in} on {done.checked_on}, in {done.check_seconds:.1f} s")
    click.echo(
        f"largest difference of a share from the Keras model's: {done.difference:.1e}"
        f" (at most {exporter.LIMIT:g})"
    )
    click.echo(f"model: {done.path}, {done.bytes / 1e6:.1f} MB, in {done.seconds:.1f} s")
