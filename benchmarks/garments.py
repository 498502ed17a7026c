"""Make the backbone of `--weights garments`: the recipe of model/network/weights/garments.npz.

    python benchmarks/garments.py data ../shared/data/clothing garments-data
    python benchmarks/garments.py train garments-data WEIGHTS garments-run
    python benchmarks/garments.py quantize garments-run model/network/weights/garments.npz

WEIGHTS: ../shared/weights/inception_v3_nsfwjs.weights.h5. The photos are those of the train folder
of the clothing data set (CC0), and people drawn by the sample shop. Epochs are chosen on its
validation folder; no test photo is used.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

# Drawn people per label and split; the seeds differ from those of the sample shop's own stock.
DRAWN = {"train": range(900_000, 900_100), "validation": range(900_100, 900_115)}
DRAWN_PIXELS = 500
# The blocks that the head reads while the backbone is fine-tuned: each of them learns garments.
FEATURE_LAYERS = "mixed5+mixed6+mixed7+mixed8"
OPTIONS = (
    *("--feature-layers", FEATURE_LAYERS, "--fine-tune", "all", "--time-budget", "none"),
    *(
        "--image-size",
        "224",
        "--epochs",
        "16",
        "--patience",
        "0",
        "--learning-rate",
        "2e-4",
        "--mixup",
        "0.2",
    ),
    *("--augment", "mirror,rotate=20,scale=0.3,cutout=0.3,colour=0.3", "--seed", "1"),
)


@click.group()
def main() -> None:
    """Make the backbone of --weights garments."""


@main.command()
@click.argument("clothing", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
def data(clothing: Path, out: Path) -> None:
    """Link the garment photos, and draw people, into one folder of splits."""
    from scraper.sample_shop.drawing.product import LABELS, draw_product

    for split, seeds in DRAWN.items():
        for path in sorted((clothing / split).glob("*/*")):
            target = out / split / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.absolute())
        for label in LABELS:
            folder = out / split / f"drawn {label}"
            folder.mkdir(parents=True, exist_ok=True)
            for seed in seeds:
                photo = draw_product(label, seed).photo
                photo.thumbnail((DRAWN_PIXELS, DRAWN_PIXELS))
                photo.save(folder / f"{seed}.jpg", quality=90)
    # `train-model` needs a test split; it decides nothing.
    (out / "test").symlink_to((out / "validation").absolute())


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("weights", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("more", nargs=-1)
def train(folder: Path, weights: Path, out: Path, more: Sequence[str]) -> None:
    """Fine-tune the backbone with train-model."""
    program = Path(__file__).parents[1] / "fashion_tagger.py"
    places = ("--data", str(folder), "--weights", str(weights), "--out", str(out))
    command = [sys.executable, str(program), "train-model", *places, *OPTIONS, *more]
    subprocess.run(command, check=True)


@main.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
def quantize(run: Path, out: Path) -> None:
    """Write the backbone of a run as int8 weights."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.inference.predictor import load_run
    from model.network import inception

    network = load_run(run).network
    inner = next(layer for layer in all_networks(network) if layer.name == "features")
    backbone = inner.get_layer("backbone")
    out.parent.mkdir(parents=True, exist_ok=True)
    inception.save_quantized(backbone, out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    blocks = inception.backbone_blocks(backbone)
    click.echo(f"{out}: up to {blocks[-1]}, {out.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")


def all_networks(network):  # type: ignore[no-untyped-def]
    """Yield a network and all networks in it."""
    import keras

    yield network
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from all_networks(layer)


if __name__ == "__main__":
    main()
