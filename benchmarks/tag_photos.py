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
from typing import TYPE_CHECKING

import click
import numpy as np

from dataset.utils.cli_options import format_table

if TYPE_CHECKING:
    from model.tagging.pipeline import Tagger


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

    steps = {"bare network": predict, "tag-photos": tag}
    for work in steps.values():
        work()
    measured = {name: list[tuple[float, float]]() for name in steps}
    for _ in range(rounds):
        for name, work in steps.items():
            measured[name].append(_seconds(work))
    medians = {
        name: [statistics.median(values) for values in zip(*rounds_, strict=True)]
        for name, rounds_ in measured.items()
    }
    click.echo(f"{run}: {tagger.predictor.precision}; {'cropped' if crop.is_enabled else 'whole'}")
    rows = [
        (name, f"{count / wall:.1f}", f"{1000 * processor / count:.1f}")
        for name, (wall, processor) in medians.items()
    ]
    click.echo(format_table(("", "photos per second", "processor ms per photo"), rows))
    (bare, bare_cpu), (full, full_cpu) = medians.values()
    click.echo(
        f"tag-photos has {bare / full:.1%} of the speed of the bare network; by processor time,"
        f" which counts on a machine that does other work, {bare_cpu / full_cpu:.1%}"
    )


def _prepared(files: list[Path], tagger: "Tagger") -> Iterator[np.ndarray]:
    """Yield the pixels of chunks of photos."""
    from model.inference.preprocessing import PhotoInput

    for chunk in tagger.preprocessor.prepare(PhotoInput(path.read_bytes) for path in files):
        yield np.stack([photo.pixels for photo in chunk if photo.pixels is not None])


def _opened(files: list[Path]) -> list[object]:
    from dataset.images.io import open_photo

    return [open_photo(path) for path in files]


def _seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return the time that a function takes, and its processor time in all threads."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
