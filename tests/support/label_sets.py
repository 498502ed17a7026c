"""Small drawn data sets whose photos have several labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from dataset.utils.files import write_json
from tests.support.drawn_splits import COUNTS

FACETS = {"colour": ["blue", "red"], "lower": ["jeans", "skirt"]}


def draw_label_sets(folder: Path, counts: Mapping[str, int] = COUNTS) -> Path:
    """Draw a multi-label build: squares at the top or the bottom, in red or blue.

    Every third photo has no colour label, and every fourth no garment.
    """
    rows: dict[str, list[object]] = {"path": [], "labels": [], "facets": [], "split": []}
    for split, count in counts.items():
        (folder / "photos" / split).mkdir(parents=True)
        for number in range(4 * count):
            colour, garment = FACETS["colour"][number % 2], FACETS["lower"][number // 2 % 2]
            photo = Image.new("RGB", (90, 120), "white")
            left, top = 10 + number % 9, 5 if garment == "jeans" else 65
            ImageDraw.Draw(photo).rectangle((left, top, left + 60, top + 50), fill=colour)
            path = f"photos/{split}/{number:03d}.png"
            photo.save(folder / path)
            labels = [colour] * (number % 3 > 0) + [garment] * (number % 4 > 0 or number % 3 == 0)
            _add(rows, path, labels, split)
    pq.write_table(pa.table(rows), folder / "manifest.parquet")
    labels = sorted(label for own in FACETS.values() for label in own)
    write_json({"labels": labels, "facets": FACETS, "format": "folders"}, folder / "labels.json")
    return folder


def _add(rows: dict[str, list[object]], path: str, labels: Sequence[str], split: str) -> None:
    facets = [facet for facet, own in FACETS.items() if set(own) & set(labels)]
    for name, value in (
        *(("path", path), ("labels", list(labels))),
        *(("facets", facets), ("split", split)),
    ):
        rows[name].append(value)
