"""Describe a build as Croissant JSON-LD (http://mlcommons.org/croissant/1.0)."""

from pathlib import Path
from typing import Any

from dataset.export.build_result import BuildOptions, BuildResult
from dataset.export.dataset_card import BUILD_LICENSES, build_license
from dataset.export.layout import (
    ATTRIBUTION,
    MANIFEST,
    PHOTOS_FOLDER,
    is_multi_label,
    label_names,
)
from dataset.images.io import sha256_of

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
    "labels": "Labels of the photo, from hashtags, the shop's own words or a reviewer.",
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
