"""Convert the boxes and masks of ../shared/data/worn to COCO JSON, for `train-pose`.

    python benchmarks/worn.py ../shared/data/worn train worn-train.json

`train-pose --annotations worn-train.json --images ../shared/data/worn/photos` reads the result.
"""

import csv
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from pycocotools import mask as masks


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("split", type=click.Choice(["train", "validation"]))
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
def main(folder: Path, split: str, out: Path) -> None:
    """Write the people of a split of the street photos to a COCO JSON file."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        chosen = {row["id"] for row in csv.DictReader(file) if row["split"] == split}
    with (folder / "boxes.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["id"] in chosen]
    images, annotations = [], []
    for number, row in enumerate(rows, start=1):
        mask = np.asarray(Image.open(folder / "masks" / f"{row['id']}.png"), np.uint8)
        height, width = mask.shape
        image = {"id": number, "file_name": f"{row['id']}.jpg", "width": width, "height": height}
        images.append(image)
        annotations.append(annotation(number, row, mask))
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    out.write_text(json.dumps(content), encoding="utf-8")
    click.echo(f"{len(annotations)} people: {out}")


def annotation(number: int, row: dict[str, str], mask: np.ndarray) -> dict[str, Any]:
    """Return the annotation of a person."""
    left, top, right, bottom = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
    encoded = masks.encode(np.asfortranarray(mask))
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
    }


if __name__ == "__main__":
    main()
