"""What a build is, for people: a dataset card in Markdown and a contact sheet a label."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dataset.export.formats import DatasetFormat
from dataset.export.layout import DatasetItem, label_folder
from dataset.images.io import open_photo
from dataset.images.store import ImageStore
from dataset.pose.crop import WHOLE
from dataset.pose.evaluation import draw_person, grid
from dataset.selection.labeling import LABEL_CONFLICT
from dataset.selection.splits import SPLITS

if TYPE_CHECKING:
    from dataset.export.build_result import BuildOptions, BuildResult

TILE, COLUMNS, ROWS = 96, 10, 4
CROP_COLUMNS = 8
RESIZE_NAMES = {
    "letterbox": "letterboxed on white",
    "crop": "cut to a square",
    "stretch": "stretched",
}


def render_card(built: "BuildResult", options: "BuildOptions", layout: DatasetFormat) -> str:
    """The card as Markdown: counts by label and split, sources, what was left out and why."""
    items = built.items
    labels = _labels(items)
    sections = [
        _front_matter(layout, [name for name in SPLITS if name in {i.split for i in items}]),
        "# Dataset card",
        f"{len(items)} photos of {len(labels)} labels, {options.size} x {options.size} pixels,"
        f" {RESIZE_NAMES[options.resize]}. Photos of one product, post or author, and photos that look the"
        " same, are in one split. `report.html` shows all of this with pictures.",
        "## Photos",
        _counts(items),
        *([] if not built.unmet else ["Where shares are not as wished:", _lines(built.unmet)]),
        "## Sources",
        _bullets(Counter(site for item in items for site in item.photo.sites)),
        "## Left out",
        _bullets(built.drops.counts),
        "`left_out.parquet` lists every image with its reason.",
        "## Conflicts of labels",
        _bullets(count_conflicts(built)),
        f"## Labels with fewer than {options.min_per_class} photos",
        _bullets(built.left_out),
        "## Audit",
        f"The {built.audit.photos} written photos were read and hashed anew; of"
        f" {built.audit.compared} near pairs across splits {len(built.audit.leaks)} are or may be"
        " one photo.",
        *_crops(items),
        "## Contact sheets",
        "\n".join(
            f"**{label}**\n\n![{label}](contact/{label_folder(label).replace('%', '%25')}.jpg)\n"
            for label in labels
        ),
        "## Licences and terms",
        "The photos belong to the shops and people who posted them, who granted no licence here;"
        " `manifest.parquet` names each photo's post. Whoever passes the photos on needs their"
        " consent or another right to.",
        "## Known gaps",
        _lines(known_limitations(built)),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(layout: DatasetFormat, splits: Sequence[str]) -> str:
    """What Hugging Face `datasets` reads of a card: which files are of which split."""
    if not layout.patterns:
        return "---\nlicense: other\n---"
    files = "\n".join(
        f'      - split: {split}\n        path: "{layout.patterns.format(split=split)}"'
        for split in splits
    )
    return (
        "---\nlicense: other\ntask_categories: [image-classification]\n"
        f"configs:\n  - config_name: default\n    data_files:\n{files}\n---"
    )


def count_conflicts(built: "BuildResult") -> Counter[str]:
    """Labels that stood against each other -> photos."""
    return Counter(one.detail for one in built.drops.images if one.reason == LABEL_CONFLICT)


def known_limitations(built: "BuildResult") -> list[str]:
    """What a user of the build must not rely on."""
    sites = {site for item in built.items for site in item.photo.sites}
    sizes = Counter(item.label for item in built.items)
    most, least = max(sizes, key=lambda s: (sizes[s], s)), min(sizes, key=lambda s: (sizes[s], s))
    decided = sum(bool(item.photo.decisions) for item in built.items)
    gaps = [
        "Labels come from hashtags and may be wrong: of"
        f" {len(built.items)} photos people looked at {decided}.",
        "Copies cropped by more than a tenth a side, turned or overlaid by more than a watermark"
        " may not be found.",
    ]
    if len(sites) == 1:
        gaps.append(f"All photos come from one site, {next(iter(sites))}, in its style.")
    if len(sizes) > 1:
        gaps.append(f"{most} has {sizes[most] / sizes[least]:.1f} times as many photos as {least}.")
    if len(sizes) == 1:
        gaps.append("There is one label: a classifier needs two to tell apart.")
    return gaps


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _crops(items: Sequence[DatasetItem]) -> list[str]:
    """The section on crops: shares of what was kept, and why not what was asked."""
    posed = [item.posed for item in items if item.posed]
    if not posed:
        return []
    shares = crop_outcomes(items)
    reasons = Counter(one.crop.reason for one in posed if one.crop.reason)
    return [
        "## Crops",
        f"Key points by {posed[0].key}.",
        "\n".join(f"- {name}: {count} ({share:.1%})" for name, count, share in shares),
        *(["Why not what was asked:", _bullets(reasons)] if reasons else []),
        "The doubtful ones first: key points, and in red what was kept.",
        "![crops](contact/crops.jpg)",
    ]


def crop_outcomes(items: Sequence[DatasetItem]) -> list[tuple[str, int, float]]:
    """Zone, person, whole: how many of ITEMS each was kept of, and their share."""
    count = Counter(item.posed.crop.outcome for item in items if item.posed)
    return [(name, number, number / count.total()) for name, number in count.most_common()]


def write_crop_sheet(items: Sequence[DatasetItem], store: ImageStore, folder: Path) -> None:
    """`contact/crops.jpg`: photos with key points and crop drawn, the doubtful ones first.

    Half the sheet is for the lowest scores of people who were found, then photos left whole, then
    an even choice of the rest.
    """
    posed = [item for item in items if item.posed]
    if not posed:
        return
    chosen = _doubtful_first(posed)
    tiles = []
    for item in chosen:
        assert item.posed is not None
        photo = open_photo(store.read(item.photo.store_key))
        model = item.posed.model
        tiles.append(
            draw_person(photo, item.posed.points, model.joints, model.gate, item.posed.crop.box)
        )
    grid(tiles).save(folder / "contact" / "crops.jpg", quality=88)


def _doubtful_first(items: Sequence[DatasetItem]) -> list[DatasetItem]:
    def doubt(item: DatasetItem) -> tuple[bool, float]:
        assert item.posed is not None
        return item.posed.crop.outcome == WHOLE, item.posed.crop.score

    ranked = sorted(items, key=doubt)
    whole = [item for item in ranked if doubt(item)[0]]
    found = ranked[: len(ranked) - len(whole)]
    lowest, rest = found[: 2 * CROP_COLUMNS], found[2 * CROP_COLUMNS :]
    even = rest[:: max(1, len(rest) // CROP_COLUMNS)][:CROP_COLUMNS]
    return [*lowest, *whole[:CROP_COLUMNS], *even]


def _labels(items: Sequence[DatasetItem]) -> list[str]:
    return sorted({item.label for item in items})


def count_rows(items: Sequence[DatasetItem]) -> list[list[str]]:
    """A row a label: its name, its photos in each split, and all."""
    count = Counter((item.label, item.split) for item in items)
    rows = []
    for label in _labels(items):
        numbers = [count[label, name] for name in SPLITS]
        rows.append([label, *map(str, [*numbers, sum(numbers)])])
    return rows


def _counts(items: Sequence[DatasetItem]) -> str:
    lines = [f"| label | {' | '.join(SPLITS)} | all |", "|---|" + "---:|" * (len(SPLITS) + 1)]
    for label, *numbers in count_rows(items):
        lines.append(f"| {label.replace('|', ' ')} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _bullets(counts: Mapping[str, int]) -> str:
    return _lines(f"{name}: {count}" for name, count in sorted(counts.items()) if count) or "none"


def write_contact_sheets(
    items: Sequence[DatasetItem], photos: Mapping[str, bytes], folder: Path
) -> None:
    """`contact/<label>.jpg` of PHOTOS, path -> JPEG, of each label, below FOLDER."""
    (folder / "contact").mkdir()
    for label in _labels(items):
        mine = [photos[path] for path in sample_paths(items, label)]
        sheet = contact_sheet(mine)
        sheet.save(folder / "contact" / f"{label_folder(label)}.jpg", quality=88)


def sample_paths(items: Sequence[DatasetItem], label: str, most: int = COLUMNS * ROWS) -> list[str]:
    """At most MOST paths of ITEMS of LABEL, evenly chosen."""
    paths = [item.path for item in items if item.label == label]
    return paths[:: max(1, len(paths) // most)][:most]


def contact_sheet(photos: Sequence[bytes]) -> Image.Image:
    """PHOTOS, JPEGs, in rows of ten, 96 pixels each, on light grey."""
    tiles = [
        open_photo(jpeg, TILE).resize((TILE, TILE), Image.Resampling.LANCZOS) for jpeg in photos
    ]
    return grid(tiles, COLUMNS, TILE)
