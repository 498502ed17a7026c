"""Compare the speed of `tag-photos` with that of the bare network.

    python -m benchmarks.tag_photos --photos ../shared/data/clothing --model runs/first

`bare network` predicts photos that are in memory already, in the same batches; `tag-photos` reads,
decodes, crops and resizes the same files, predicts them, and writes their rows. Both are measured
in turns; the medians are compared. With a run whose photos are cropped, `bare network` includes the
pose network.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import click
import numpy as np

from dataset.utils.cli_options import format_table


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--model", "run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--count", default=512, show_default=True, help="Photos per round.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--precision", default="auto", show_default=True)
def main(photos: Path, run: Path, count: int, rounds: int, precision: str) -> None:
    """Print photos per second of the bare network and of tag-photos, and their ratio."""
    from dataset.images.io import find_photos
    from dataset.selection.crops import PoseOptions
    from model.inference.preprocessing import CHUNK_SIZE
    from model.tagging import pipeline
    from model.tagging.sources import FileSource

    tagger = pipeline.load_tagger(run, None, 3, precision)
    files = list(islice(cycle(find_photos(photos.rglob("*.*")).paths), count))
    crop = tagger.run.crop
    chunks = list(_prepared(files, tagger))
    images = _opened(files) if crop.is_enabled else []

    def predict() -> None:
        if crop.is_enabled:
            for start in range(0, count, CHUNK_SIZE):
                tagger.preprocessor._estimator.find(images[start : start + CHUNK_SIZE])
        for pixels in chunks:
            tagger.predictor.predict(pixels)

    def tag() -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = pipeline.FileOutput(Path(folder) / "tags.csv", {}, explain=False)
            items = FileSource(files).items(PoseOptions("none"))
            pipeline._tag_all(items, tagger, output)
            output.finish()

    measured: dict[str, list[float]] = {"bare network": [], "tag-photos": []}
    for step in (predict, tag):
        step()
    for _ in range(rounds):
        for name, work in zip(measured, (predict, tag), strict=True):
            measured[name].append(count / _seconds(work))
    speeds = {name: statistics.median(values) for name, values in measured.items()}
    click.echo(f"{run}: {tagger.predictor.precision}; crop: {crop.crop if crop.is_enabled else ''}")
    rows = [(name, f"{speed:.1f}") for name, speed in speeds.items()]
    click.echo(format_table(("", "photos per second"), rows))
    ratio = speeds["tag-photos"] / speeds["bare network"]
    click.echo(f"tag-photos has {ratio:.1%} of the speed of the bare network")


def _prepared(files: list[Path], tagger: "object") -> Iterator[np.ndarray]:
    """Yield the pixels of chunks of photos."""
    from model.inference.preprocessing import PhotoInput
    from model.tagging.pipeline import Tagger

    assert isinstance(tagger, Tagger)
    for chunk in tagger.preprocessor.prepare(PhotoInput(path.read_bytes) for path in files):
        yield np.stack([photo.pixels for photo in chunk if photo.pixels is not None])


def _opened(files: list[Path]) -> list[object]:
    from dataset.images.io import open_photo

    return [open_photo(path) for path in files]


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
