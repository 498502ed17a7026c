"""Describe a build: the dataset card (README.md), contact sheets, and Croissant JSON-LD.

Croissant: http://mlcommons.org/croissant/1.0.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dataset.catalogue.models import FREE_LICENSES
from dataset.export.formats import DatasetFormat
from dataset.export.layout import (
    ATTRIBUTION,
    EXCLUDED,
    MANIFEST,
    PHOTOS_FOLDER,
    BuildOptions,
    BuildResult,
    DatasetItem,
    is_multi_label,
    label_folder,
    label_names,
    labels_by_facet,
)
from dataset.export.leakage_audit import RECALL_SENTENCE, describe_audit
from dataset.images.io import open_photo, sha256_of
from dataset.images.store import ImageStore
from dataset.pose.crop import WHOLE, draw_person, grid
from dataset.selection.labeling import LABEL_CONFLICT
from dataset.selection.splits import SPLITS

TILE_PIXELS, COLUMNS, ROWS = 96, 10, 4
CROP_COLUMNS = 8
UNLABELLED = "(unlabelled)"
SHEET_QUALITY = 88
MASKS_SENTENCE = (
    "`masks/` has the mask of each person, from 0 (background) to 255 (person); `manifest.parquet`"
    " has its path in the column `mask`."
)
RESIZE_NAMES = {
    "letterbox": "letterboxed on white",
    "crop": "cropped to a square",
    "stretch": "stretched to a square",
}
MAX_AUTHORS = 100
FIELDS = {
    "path": "Path below the folder, or the name within a shard.",
    "label": "Label of the photo, from hashtags or a reviewer.",
    "split": "train, validation or test.",
    "sha256": "SHA-256 of the downloaded file.",
    "group": "Equal for photos that must stay in one split.",
    "post_url": "Address of the product or post.",
    "site": "Name of the site.",
    "shard": "The file that contains the photo.",
}
# Fields of multi-label builds, of which these are lists.
LIST_FIELDS = {
    "labels": "Labels of the photo, from hashtags, attributes of the product or a reviewer.",
    "facets": "What the labels describe. Facets that are not in the list are unlabelled.",
}
MULTI_LABEL_FIELDS = {"path": FIELDS["path"], **LIST_FIELDS} | {
    name: text for name, text in FIELDS.items() if name != "label"
}
TERMS = {
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes"),
            *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator"),
            *("source", "subField", "transform"),
        )
    },
}
ENCODING = {
    "tar": "application/x-tar",
    "parquet": "application/x-parquet",
    "tfrecord": "application/octet-stream",
}


def render_card(result: BuildResult, options: BuildOptions, output_format: DatasetFormat) -> str:
    """Render the dataset card as Markdown, with the front matter that Hugging Face reads."""
    items = result.items
    labels = label_names(items)
    audit = result.audit
    sections = [
        _front_matter(
            output_format, [s for s in SPLITS if s in {item.split for item in items}], items
        ),
        "# Dataset card",
        f"{len(items)} photos of {len(labels)} labels, {options.size} x {options.size} pixels,"
        f" {RESIZE_NAMES[options.resize]}. Photos of one product, post or author and near"
        " duplicates are in one split. `report.html` shows all of this with images.",
        "## Photos",
        _count_table(items),
        *(
            ["Deviations from the requested proportions:", _lines(result.deviations)]
            if result.deviations
            else []
        ),
        "## Sources",
        _bullets(Counter(site for item in items for site in item.photo.sites)),
        "## Excluded",
        _bullets(result.exclusions.counts),
        f"`{EXCLUDED}` lists every excluded image with its reason.",
        "## Label conflicts",
        _bullets(count_conflicts(result)),
        f"## Labels with fewer than {options.min_per_class} photos",
        _bullets(result.small_classes),
        "## Leakage audit",
        f"{describe_audit(audit)} {RECALL_SENTENCE}",
        *_crop_section(items),
        "## Contact sheets",
        "\n".join(
            f"**{label}**\n\n![{label}](contact/{label_folder(label).replace('%', '%25')}.jpg)\n"
            for label in labels
        ),
        "## Licenses and terms",
        _bullets(Counter(item.photo.credit.code for item in items)),
        describe_terms(items),
        "## Known limitations",
        _lines(known_limitations(result)),
    ]
    return "\n\n".join(sections) + "\n"


# Code of the license of a build -> its name at Hugging Face, name and URL.
BUILD_LICENSES = {
    "cc0": ("cc0-1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "by": ("cc-by-4.0", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
    "by-sa": ("cc-by-sa-4.0", "CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
}


def build_license(items: Sequence[DatasetItem]) -> str | None:
    """Return the license under which a build may be published, a key of BUILD_LICENSES.

    Returns:
        The most demanding license of its photos; None if one of them is not freely licensed.
    """
    codes = {item.photo.credit.code for item in items}
    if not codes or not codes.issubset(FREE_LICENSES):
        return None
    return next((code for code in ("by-sa", "by") if code in codes), "cc0")


def describe_terms(items: Sequence[DatasetItem]) -> str:
    """Return whether a build may be published, and under what."""
    code = build_license(items)
    if code is not None:
        _, name, url = BUILD_LICENSES[code]
        duty = (
            "" if code == "cc0" else ", with the credits and the changes (cropped, resized) named"
        )
        return (
            "All photos are freely licensed, by what their sources say: the build may be published"
            f" under [{name}]({url}){duty}. `{ATTRIBUTION}` lists license, author, attribution and"
            " source page of each photo. Licenses are not verified, and people in photos may"
            " have rights of their own."
        )
    other = sum(item.photo.credit.code not in FREE_LICENSES for item in items)
    return (
        f"The build may not be published: {other} of {len(items)} photos have no free license"
        " (cc0, pdm, by, by-sa). Photos of unknown license belong to the shops and people who"
        " posted them, who did not license them for this use. Passing the photos on needs their"
        f" consent or another legal basis. `{ATTRIBUTION}` lists license, author and source page of"
        " each photo, `manifest.parquet` its post. `build-dataset --license cc0,pdm,by,by-sa`"
        " builds from freely licensed photos only."
    )


def _front_matter(
    output_format: DatasetFormat, splits: Sequence[str], items: Sequence[DatasetItem]
) -> str:
    """Return the YAML that tells Hugging Face `datasets` which files belong to which split."""
    code = build_license(items)
    name = BUILD_LICENSES[code][0] if code else "other"
    is_multi = is_multi_label(items)
    if not output_format.patterns:
        return f"---\nlicense: {name}\n---"
    files = "\n".join(
        f'      - split: {split}\n        path: "{output_format.files_of(split, is_multi)}"'
        for split in splits
    )
    return (
        f"---\nlicense: {name}\ntask_categories: [image-classification]\n"
        f"configs:\n  - config_name: default\n    data_files:\n{files}\n---"
    )


def count_conflicts(result: BuildResult) -> Counter[str]:
    """Count the excluded images per combination of conflicting labels."""
    return Counter(
        image.detail for image in result.exclusions.images if image.reason == LABEL_CONFLICT
    )


def known_limitations(result: BuildResult) -> list[str]:
    """Describe what users of the build should know before they rely on it."""
    sites = {site for item in result.items for site in item.photo.sites}
    sizes = Counter(label for item in result.items for label in item.labels)
    largest = max(sizes, key=lambda label: (sizes[label], label))
    smallest = min(sizes, key=lambda label: (sizes[label], label))
    reviewed = sum(bool(item.photo.decisions) for item in result.items)
    limitations = [
        f"Labels come from hashtags and may be wrong: {reviewed} of {len(result.items)} photos"
        " were reviewed by people.",
        "Copies that are cropped by more than a tenth per side, rotated, or overlaid by more than"
        " a watermark may not be found.",
    ]
    if len(sites) == 1:
        limitations.append(f"All photos come from one site, {next(iter(sites))}, in its style.")
    if len(sizes) > 1:
        ratio = sizes[largest] / sizes[smallest]
        limitations.append(f"{largest} has {ratio:.1f} times as many photos as {smallest}.")
    if len(sizes) == 1:
        limitations.append("There is one label: a classifier needs at least two.")
    if is_multi_label(result.items):
        limitations.append(
            "A facet without a label is unknown: the photo may still have one of its labels."
        )
        limitations += [
            f"{facet} has one label, {labels[0]}: a classifier needs at least two."
            for facet, labels in labels_by_facet(result.items).items()
            if len(labels) == 1
        ]
    return limitations


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _crop_section(items: Sequence[DatasetItem]) -> list[str]:
    crops = [item.person_crop for item in items if item.person_crop]
    if not crops:
        return []
    reasons = Counter(crop.crop.reason for crop in crops if crop.crop.reason)
    return [
        "## Crops",
        f"Key points by {crops[0].key}.",
        "\n".join(
            f"- {outcome}: {count} ({fraction:.1%})"
            for outcome, count, fraction in crop_outcomes(items)
        ),
        *(["Reasons for other crops than requested:", _bullets(reasons)] if reasons else []),
        *([MASKS_SENTENCE] if any(item.mask_path for item in items) else []),
        "Key points, and the crop in red; uncertain ones first:",
        "![crops](contact/crops.jpg)",
    ]


def crop_outcomes(items: Sequence[DatasetItem]) -> list[tuple[str, int, float]]:
    """Count the crop outcomes.

    Returns:
        Outcome (person or whole), number of items and their fraction, most frequent first.
    """
    count = Counter(item.person_crop.crop.outcome for item in items if item.person_crop)
    return [(outcome, number, number / count.total()) for outcome, number in count.most_common()]


def write_crop_sheet(items: Sequence[DatasetItem], store: ImageStore, folder: Path) -> None:
    """Write `contact/crops.jpg`: images with their key points and crops.

    Half of the sheet shows the crops with the lowest scores, then follow images left whole and a
    regular sample of the rest.
    """
    tiles = []
    for item in _uncertain_first([item for item in items if item.person_crop]):
        assert item.person_crop is not None
        photo = open_photo(store.read(item.photo.store_key))
        model, points = item.person_crop.model, item.person_crop.points
        tiles.append(
            draw_person(photo, points, model.joints, model.gate, item.person_crop.crop.box)
        )
    if tiles:
        grid(tiles).save(folder / "contact" / "crops.jpg", quality=SHEET_QUALITY)


def _uncertain_first(items: Sequence[DatasetItem]) -> list[DatasetItem]:
    def sort_key(item: DatasetItem) -> tuple[bool, float]:
        assert item.person_crop is not None
        return item.person_crop.crop.outcome == WHOLE, item.person_crop.crop.score

    ranked = sorted(items, key=sort_key)
    whole = [item for item in ranked if sort_key(item)[0]]
    cropped = ranked[: len(ranked) - len(whole)]
    lowest, rest = cropped[: 2 * CROP_COLUMNS], cropped[2 * CROP_COLUMNS :]
    sample = rest[:: max(1, len(rest) // CROP_COLUMNS)][:CROP_COLUMNS]
    return [*lowest, *whole[:CROP_COLUMNS], *sample]


def count_rows(items: Sequence[DatasetItem]) -> list[list[str]]:
    """Return a row for each label: its name, its images in each split, and their sum.

    In a multi-label build the rows begin with the facet, and the last one of each facet has the
    images whose facet is unlabelled.
    """
    count = Counter((label, item.split) for item in items for label in item.labels)
    if not is_multi_label(items):
        return [[label, *_counts(label, count)] for label in label_names(items)]
    for item in items:
        count[UNLABELLED, item.split] += 1
    labelled = Counter((facet, item.split) for item in items for facet in item.facets)
    rows = []
    for facet, labels in labels_by_facet(items).items():
        rows += [[facet, label, *_counts(label, count)] for label in labels]
        unlabelled = Counter(
            {(UNLABELLED, s): count[UNLABELLED, s] - labelled[facet, s] for s in SPLITS}
        )
        rows.append([facet, UNLABELLED, *_counts(UNLABELLED, unlabelled)])
    return rows


def _counts(label: str, count: Mapping[tuple[str, str], int]) -> list[str]:
    numbers = [count[label, split] for split in SPLITS]
    return [str(number) for number in (*numbers, sum(numbers))]


def count_columns(items: Sequence[DatasetItem]) -> list[str]:
    """Return the headings of `count_rows`."""
    return [*(["facet"] if is_multi_label(items) else []), "label", *SPLITS, "all"]


def _count_table(items: Sequence[DatasetItem]) -> str:
    columns = count_columns(items)
    names = len(columns) - len(SPLITS) - 1
    lines = [f"| {' | '.join(columns)} |", "|" + names * "---|" + "---:|" * (len(SPLITS) + 1)]
    for row in count_rows(items):
        lines.append(f"| {' | '.join(value.replace('|', ' ') for value in row)} |")
    return "\n".join(lines)


def _bullets(counts: Mapping[str, int]) -> str:
    return _lines(f"{name}: {count}" for name, count in sorted(counts.items()) if count) or "none"


def write_contact_sheets(
    items: Sequence[DatasetItem], jpegs: Mapping[str, bytes], folder: Path
) -> None:
    """Write `contact/<label>.jpg` for each label.

    Args:
        items: Items of the build.
        jpegs: Path -> JPEG file of at least the sampled items.
        folder: Folder of the build.
    """
    (folder / "contact").mkdir()
    for label in label_names(items):
        sheet = contact_sheet([jpegs[path] for path in sample_paths(items, label)])
        sheet.save(folder / "contact" / f"{label_folder(label)}.jpg", quality=SHEET_QUALITY)


def sample_paths(
    items: Sequence[DatasetItem], label: str, count: int = COLUMNS * ROWS
) -> list[str]:
    """Return at most `count` paths of a label's items, evenly spaced."""
    paths = [item.path for item in items if label in item.labels]
    return paths[:: max(1, len(paths) // count)][:count]


def contact_sheet(jpegs: Sequence[bytes]) -> Image.Image:
    """Arrange images in rows of ten, 96 pixels each."""
    size = (TILE_PIXELS, TILE_PIXELS)
    tiles = [open_photo(jpeg, TILE_PIXELS).resize(size, Image.Resampling.LANCZOS) for jpeg in jpegs]
    return grid(tiles, COLUMNS, TILE_PIXELS)


def describe_build(result: BuildResult, options: BuildOptions, folder: Path) -> dict[str, Any]:
    """Return the JSON-LD of a build.

    Args:
        result: The build.
        options: Its options.
        folder: Folder with its files.
    """
    labels = label_names(result.items)
    is_multi = is_multi_label(result.items)
    code = build_license(result.items)
    sites = sorted({site for item in result.items for site in item.photo.sites})
    return {
        "@context": {"@language": "en", "@vocab": "https://schema.org/", **TERMS},
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "fashion-tagger-build",
        "description": f"{len(result.items)} photos of {', '.join(labels)}, found under hashtags on"
        f" {', '.join(sites) or 'no site'}, in leak-free splits.",
        "license": BUILD_LICENSES[code][2]
        if code
        else "Each photo belongs to whoever posted it; post_url names the post.",
        "creditText": _credit_text(result),
        "url": "https://schema.org/Dataset",
        "version": "1.0.0",
        "distribution": [_file(folder, MANIFEST), *_photos(result, options, folder)],
        "recordSet": [_splits(), _labels(labels), _records(is_multi)],
    }


def _credit_text(result: BuildResult) -> str:
    """Return the authors of the photos; attribution.csv has the credit of each photo."""
    authors = sorted({item.photo.credit.author or "" for item in result.items} - {""})
    named = ", ".join(authors[:MAX_AUTHORS])
    more = f" and {len(authors) - MAX_AUTHORS} others" if len(authors) > MAX_AUTHORS else ""
    photos = f"Photos by {named}{more}. " if named else ""
    return f"{photos}{ATTRIBUTION} names license, author and source page of each photo."


def _file(folder: Path, name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": ENCODING[name.rpartition(".")[2]],
        "sha256": sha256_of((folder / name).read_bytes()),
    }


def _photos(result: BuildResult, options: BuildOptions, folder: Path) -> list[dict[str, Any]]:
    """Return the shards, or one file set for image folders."""
    if options.format != "folders":
        return [_file(folder, name) for name in sorted({item.shard for item in result.items})]
    return [
        {
            "@type": "cr:FileSet",
            "@id": "photos",
            "name": "photos",
            "encodingFormat": "image/jpeg",
            "includes": f"{PHOTOS_FOLDER}/*/*.jpg" if is_multi_label(result.items) else "*/*/*.jpg",
        }
    ]


def _splits() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            _field("splits", "name", "Name of the split."),
            _field("splits", "url", "", "sc:URL"),
        ],
        "data": [
            {"splits/name": name, "splits/url": f"cr:{kind}Split"}
            for name, kind in (
                ("train", "Training"),
                ("validation", "Validation"),
                ("test", "Test"),
            )
        ],
    }


def _labels(labels: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "labels",
        "name": "labels",
        "key": {"@id": "labels/name"},
        "field": [_field("labels", "name", "Name of the label.")],
        "data": [{"labels/name": label} for label in labels],
    }


def _field(owner: str, name: str, text: str, kind: str = "sc:Text") -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": f"{owner}/{name}", "name": name, "dataType": kind}
    return field | ({"description": text} if text else {})


def _records(is_multi: bool) -> dict[str, Any]:
    fields = []
    for name, text in (MULTI_LABEL_FIELDS if is_multi else FIELDS).items():
        source = {"fileObject": {"@id": MANIFEST}, "extract": {"column": name}}
        repeated = {"repeated": True} if name in LIST_FIELDS else {}
        fields.append(_field("items", name, text) | repeated | {"source": source})
    return {"@type": "cr:RecordSet", "@id": "items", "name": "items", "field": fields}
