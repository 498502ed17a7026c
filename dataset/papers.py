"""What stands beside the photos of a build: labels, card, sheets, report, what was left out."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dataset import card, croissant, export, report
from dataset.formats import FORMATS
from dataset.plan import Choice
from dataset.stores import ImageStore

if TYPE_CHECKING:
    from dataset.build import BuildOptions, Built


def write(
    built: "Built", part: Path, options: "BuildOptions", choice: Choice, store: ImageStore
) -> None:
    """Write all papers of BUILT below PART."""
    names = sorted({item.label for item in built.items})
    export.write_json(labels_json(names, options, choice), part / "labels.json")
    export.write_left_out(built.drops.images, part / "left_out.parquet")
    wanted = report.shown_photos(built)
    photos = {path: jpeg for path, jpeg in FORMATS[options.format].read(part) if path in wanted}
    card.write_contact_sheets(built.items, photos, part)
    card.write_crop_sheet(built.items, store, part)
    text = card.dataset_card(built, options, FORMATS[options.format])
    (part / "README.md").write_text(text, encoding="utf-8")
    export.write_json(croissant.describe(built, options, part), part / "croissant.json")
    page = report.page(built, options, choice.gates, photos, store)
    (part / "report.html").write_text(page, encoding="utf-8")


def labels_json(names: list[str], options: "BuildOptions", choice: Choice) -> Mapping[str, object]:
    """The labels, their folders and garment zones, and how the photos are laid down."""
    return {
        "labels": names,
        "folders": {name: export.folder_of(name) for name in names},
        "zones": {name: choice.vocabulary.zone_of(name) for name in names},
        "size": options.size,
        "resize": options.resize,
        "format": options.format,
    }
