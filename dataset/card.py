"""What a build is, for people: a dataset card in Markdown and a contact sheet a label."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from dataset.export import Item, folder_of
from dataset.splits import SPLITS

TILE, COLUMNS, ROWS = 96, 10, 4


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
    gap = 4
    rows = -(-len(paths) // COLUMNS)
    columns = min(len(paths), COLUMNS)
    pitch = TILE + gap
    sheet = Image.new("RGB", (columns * pitch + gap, rows * pitch + gap), (226, 226, 226))
    for number, path in enumerate(paths):
        with Image.open(path) as photo:
            tile = photo.resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(tile, (gap + number % COLUMNS * pitch, gap + number // COLUMNS * pitch))
    return sheet
