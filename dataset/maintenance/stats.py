"""`catalogue stats` and `catalogue clusters`: count and list what a catalogue contains."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.models import ImageRow, NearDuplicateRow
from dataset.catalogue.queries import hashtag_quotas, in_batches, rejections, search_stats
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.verification import Relation
from dataset.selection.candidates import Candidate, Exclusions, load_candidates, order_copies
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


def list_clusters(session: Session) -> list[dict[str, Any]]:
    """List the clusters of several images, the largest first.

    Returns:
        `cluster`, `photos` and `products` of each: its id, the keys of its images, the best copy
        first, and the number of products or posts that show them.
    """
    query = (
        sa.select(ImageRow.cluster_id)
        .where(ImageRow.state == "stored", ImageRow.cluster_id.is_not(None))
        .group_by(ImageRow.cluster_id)
        .having(sa.func.count(ImageRow.id) > 1)
    )
    clusters: dict[int, list[Candidate]] = {}
    for batch in in_batches([number for number in session.scalars(query) if number is not None]):
        for candidate in load_candidates(session, clusters=batch):
            clusters.setdefault(candidate.cluster, []).append(candidate)
    order = sorted(clusters, key=lambda cluster: (-len(clusters[cluster]), cluster))
    return [
        {
            "cluster": cluster,
            "photos": [copy.store_key for copy in order_copies(clusters[cluster])],
            "products": len({url for copy in clusters[cluster] for url in copy.post_urls}),
        }
        for cluster in order
    ]


def list_possible(session: Session) -> list[dict[str, Any]]:
    """List pairs of images of different clusters that show the same photo.

    Returns:
        `similarity` and `photos` (two keys) of each, the most similar first.
    """
    first, second = aliased(ImageRow), aliased(ImageRow)
    rows = session.execute(
        sa.select(NearDuplicateRow.similarity, first.store_key, second.store_key)
        .join(first, first.id == NearDuplicateRow.one_id)
        .join(second, second.id == NearDuplicateRow.other_id)
        .where(
            first.cluster_id != second.cluster_id, NearDuplicateRow.relation != Relation.UNRELATED
        )
        .order_by(NearDuplicateRow.similarity.desc(), first.store_key, second.store_key)
    )
    return [{"similarity": similarity, "photos": list(keys)} for similarity, *keys in rows]
