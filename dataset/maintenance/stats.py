"""`catalogue stats`: count the contents of a catalogue, and format the counts."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset.catalogue.session import open_catalogue
from dataset.catalogue.stats import hashtag_quotas, rejections, search_stats
from dataset.selection.candidates import Exclusions
from dataset.selection.labeling import label_photos
from dataset.utils.cli_options import format_table
from dataset.vocabulary import load_vocabulary


def read_stats(catalogue: str, vocabulary: Path | None, minimum: int) -> dict[str, Any]:
    """Count searches, labels, exclusions, rejections and quotas of a catalogue.

    Args:
        catalogue: URL of the catalogue.
        vocabulary: Own labels, None for the built-in ones.
        minimum: Number of photos each label should have.

    Returns:
        The counts, ready for JSON.

    Raises:
        BadInput: There is no such catalogue or vocabulary.
        Failure: The catalogue cannot be read.
    """
    words = load_vocabulary(vocabulary)
    with open_catalogue(catalogue, must_exist=True)() as session:
        drops = Exclusions()
        sizes = Counter(image.label for image in label_photos(session, words, drops))
        return {
            "searches": [asdict(line) for line in search_stats(session)],
            "labels": [
                {"label": label, "photos": count, "missing": max(0, minimum - count)}
                for label, count in sorted(sizes.items())
            ],
            "excluded": {reason: count for reason, count in sorted(drops.counts.items()) if count},
            "rejected": [
                {"site": site, "reason": reason, "photos": count}
                for site, reason, count in rejections(session)
            ],
            "week": [asdict(line) for line in hashtag_quotas(session)],
            "min_per_class": minimum,
        }


def format_stats(stats: dict[str, Any]) -> str:
    """Format the counts of `read_stats` as tables for a terminal."""
    parts = [
        _table(
            stats["searches"],
            ("site", "hashtag", "posts", "images", "duplicates", "pending", "rejected", "state"),
        ),
        "\n".join(
            f"{line['site']} {line['hashtag']} failed: {line['reason']}"
            for line in stats["searches"]
            if line["reason"]
        ),
        _table(stats["labels"], ("label", "photos", "missing"), f"to {stats['min_per_class']}"),
        "\n".join(f"excluded {count}: {reason}" for reason, count in stats["excluded"].items()),
        _table(stats["rejected"], ("site", "reason", "photos")),
        *(_week(line) for line in stats["week"]),
    ]
    return "\n\n".join(part for part in parts if part) or "the catalogue is empty"


def _week(line: dict[str, Any]) -> str:
    return (
        f"{line['site']}: {line['requested']} of {line['allowed']} hashtags requested in 7 days"
        f" by account {line['account']} (next one free {line['next_free']} UTC): {line['hashtags']}"
    )


def _table(lines: list[dict[str, Any]], names: tuple[str, ...], note: str = "") -> str:
    if not lines:
        return ""
    head = [f"{name} {note}".strip() if name == "missing" else name for name in names]
    return format_table(head, [[str(line[name]) for name in names] for line in lines])
