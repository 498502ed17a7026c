"""Finding conflicts of labels as a build's plan does, of a catalogue of any size, for a queue."""

import json
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.candidates import Drops, fold, load
from dataset.catalogue.queries import in_parts
from dataset.catalogue.review_tables import Conflict
from dataset.catalogue.session import Sessions
from dataset.catalogue.tables import Hashtag, ImageRow, PostHashtag, Sighting
from dataset.gates import load_gates, pass_gates
from dataset.labelling import labels_of
from dataset.labels import Vocabulary

# Rows that are read together.
LOADED = 10_000


def find_conflicts(sessions: Sessions, vocabulary: Vocabulary) -> int:
    """Bring the catalogue's conflicts of labels up to date, decided or not; returns how many."""
    found: dict[int, str] = {}
    with sessions() as session:
        suspects = _suspects(session, vocabulary)
        for part in in_parts(suspects):
            found |= _conflicts(session, part, vocabulary)
    with sessions.begin() as session:
        query = sa.select(Conflict.image_id, Conflict.labels)
        known = {image: labels for image, labels in session.execute(query)}  # noqa: C416
        gone = [image for image, labels in known.items() if found.get(image) != labels]
        for part in in_parts(gone):
            session.execute(sa.delete(Conflict).where(Conflict.image_id.in_(part)))
        new = [
            {"image_id": image, "labels": labels}
            for image, labels in found.items()
            if known.get(image) != labels
        ]
        if new:
            session.execute(sa.insert(Conflict), new)
    return len(found)


def _suspects(session: Session, vocabulary: Vocabulary) -> list[int]:
    """Clusters that were found under words of several labels."""
    searched = sa.select(PostHashtag.hashtag_id).where(PostHashtag.source == "search").distinct()
    words = session.execute(sa.select(Hashtag.id, Hashtag.text).where(Hashtag.id.in_(searched)))
    label_of = {number: vocabulary.label_or_own(text) for number, text in words}
    if len(set(label_of.values())) < 2:
        return []
    rows = session.execute(
        sa.select(ImageRow.cluster_id, PostHashtag.hashtag_id)
        .join(Sighting, Sighting.image_id == ImageRow.id)
        .join(PostHashtag, PostHashtag.post_id == Sighting.post_id)
        .where(
            ImageRow.state == "stored",
            ImageRow.cluster_id.is_not(None),
            PostHashtag.source == "search",
        )
        .order_by(ImageRow.cluster_id)
        .execution_options(yield_per=LOADED)
    )
    return [
        cluster
        for cluster, members in groupby(rows, itemgetter(0))
        if len({label_of.get(hashtag) for _, hashtag in members}) > 1
    ]


def _conflicts(session: Session, clusters: Sequence[int], vocabulary: Vocabulary) -> dict[int, str]:
    """Of CLUSTERS those whose photo is good enough and has several labels: image -> them."""
    photos = fold(load(session, clusters=clusters), Drops())
    found = {}
    for photo in pass_gates(photos, load_gates(), Drops()):
        labels = labels_of(photo, vocabulary)
        if len(labels) > 1:
            found[photo.image_id] = json.dumps(labels, ensure_ascii=False)
    return found
