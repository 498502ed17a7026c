"""What a build is, for people: a dataset card in Markdown and a contact sheet a label."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from dataset.crop import WHOLE
from dataset.export import Item, folder_of
from dataset.images import ImageStore, open_photo
from dataset.pose.pictures import draw_person, grid
from dataset.splits import SPLITS

TILE, COLUMNS, ROWS = 96, 10, 4
CROP_COLUMNS = 8


def dataset_card(
    items: Sequence[Item],
    drops: Mapping[str, int],
    left_out: Mapping[str, int],
    minimum: int,
    size: int,
) -> str:
    """The card as Markdown: counts by label and split, sources, what was left out and why."""
    sections = [
        "# Dataset card",
        f"{len(items)} photos of {len({item.label for item in items})} labels, {size} x {size}"
        " pixels, letterboxed on white. Photos of one product or post, and photos that look the"
        " same, are in one split.",
        "## Photos",
        _counts(items),
        "## Sources",
        _bullets(Counter(site for item in items for site in item.labelled.photo.sites)),
        "## Left out",
        _bullets(drops),
        f"## Labels with fewer than {minimum} photos",
        _bullets(left_out),
        *_crops(items),
        "## Contact sheets",
        "\n".join(
            f"**{label}**\n\n![{label}](contact/{folder_of(label).replace('%', '%25')}.jpg)\n"
            for label in _labels(items)
        ),
        "## Terms",
        "The photos belong to the shops and people who posted them; `manifest.parquet` names each"
        " photo's post. Labels come from hashtags and may be wrong.",
    ]
    return "\n\n".join(sections) + "\n"


def _crops(items: Sequence[Item]) -> list[str]:
    """The section on crops: shares of what was kept, and why not what was asked."""
    posed = [item.posed for item in items if item.posed]
    if not posed:
        return []
    shares = crop_shares(items)
    reasons = Counter(one.crop.reason for one in posed if one.crop.reason)
    return [
        "## Crops",
        f"Key points by {posed[0].key}.",
        "\n".join(f"- {name}: {count} ({share:.1%})" for name, count, share in shares),
        *(["Why not what was asked:", _bullets(reasons)] if reasons else []),
        "The doubtful ones first: key points, and in red what was kept.",
        "![crops](contact/crops.jpg)",
    ]


def crop_shares(items: Sequence[Item]) -> list[tuple[str, int, float]]:
    """Zone, person, whole: how many of ITEMS each was kept of, and their share."""
    count = Counter(item.posed.crop.outcome for item in items if item.posed)
    return [(name, number, number / count.total()) for name, number in count.most_common()]


def write_crop_sheet(items: Sequence[Item], store: ImageStore, folder: Path) -> None:
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
        photo = open_photo(store.path(item.labelled.photo.store_key))
        model = item.posed.model
        tiles.append(
            draw_person(photo, item.posed.points, model.joints, model.gate, item.posed.crop.box)
        )
    grid(tiles).save(folder / "contact" / "crops.jpg", quality=88)


def _doubtful_first(items: Sequence[Item]) -> list[Item]:
    def doubt(item: Item) -> tuple[bool, float]:
        assert item.posed is not None
        return item.posed.crop.outcome == WHOLE, item.posed.crop.score

    ranked = sorted(items, key=doubt)
    whole = [item for item in ranked if doubt(item)[0]]
    found = ranked[: len(ranked) - len(whole)]
    lowest, rest = found[: 2 * CROP_COLUMNS], found[2 * CROP_COLUMNS :]
    even = rest[:: max(1, len(rest) // CROP_COLUMNS)][:CROP_COLUMNS]
    return [*lowest, *whole[:CROP_COLUMNS], *even]


def _labels(items: Sequence[Item]) -> list[str]:
    return sorted({item.label for item in items})


def _counts(items: Sequence[Item]) -> str:
    count = Counter((item.label, item.split) for item in items)
    lines = [f"| label | {' | '.join(SPLITS)} | all |", "|---|" + "---:|" * (len(SPLITS) + 1)]
    for label in _labels(items):
        numbers = [count[label, name] for name in SPLITS]
        lines.append(
            f"| {label.replace('|', ' ')} | {' | '.join(map(str, [*numbers, sum(numbers)]))} |"
        )
    return "\n".join(lines)


def _bullets(counts: Mapping[str, int]) -> str:
    lines = [f"- {name}: {count}" for name, count in sorted(counts.items()) if count]
    return "\n".join(lines) or "none"


def write_contact_sheets(items: Sequence[Item], folder: Path) -> None:
    """`contact/<label>.jpg` of the first photos of each label, from the files below FOLDER."""
    (folder / "contact").mkdir()
    for label in _labels(items):
        paths = [folder / item.path for item in items if item.label == label]
        step = max(1, len(paths) // (COLUMNS * ROWS))
        sheet = contact_sheet(paths[::step][: COLUMNS * ROWS])
        sheet.save(folder / "contact" / f"{folder_of(label)}.jpg", quality=88)


def contact_sheet(paths: Sequence[Path]) -> Image.Image:
    """The photos of PATHS in rows of ten, 96 pixels each, on light grey."""
    tiles = []
    for path in paths:
        with Image.open(path) as photo:
            tiles.append(photo.resize((TILE, TILE), Image.Resampling.LANCZOS))
    return grid(tiles, COLUMNS, TILE)
