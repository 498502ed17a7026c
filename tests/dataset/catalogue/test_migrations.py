"""Catalogues of earlier revisions are migrated with their rows, and archives of them imported."""

import json
import sqlite3
import tarfile
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from dataset.catalogue.models import (
    CropDecision,
    FingerprintRow,
    ImageRow,
    NearDuplicateRow,
    RequestedHashtag,
    Sighting,
    TagVerdictRow,
    TakedownRow,
    Worker,
)
from dataset.catalogue.session import MIGRATIONS, catalogue_url, open_catalogue
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore
from dataset.maintenance.archive import CATALOGUE, import_archive
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import catalogue_of

DAY = "2026-01-02 03:04:05"
NEAREST = [
    {"sha256": "0" * 64, "label": 'a "likeness": 3', "likeness": 0.91},
    {"sha256": "1" * 64, "label": "платье", "likeness": 0.5},
]


def rows_of_0013() -> dict[str, list[dict[str, object]]]:
    """Return rows of each table that revision 0014 changes, and of those they refer to."""
    files = [photo_bytes(seed) for seed in range(2)]
    images: list[dict[str, object]] = [
        {
            "sha256": sha256_of(data),
            "store_key": ImageStore.key(sha256_of(data), "jpg"),
            "bytes": len(data),
            "state": "stored",
            "reason": None,
        }
        for data in files
    ]
    images.append({"sha256": "f" * 64, "bytes": 9, "state": "refused", "reason": "empty"})
    sightings = [
        ("stored", None, 1),
        ("stored", None, 2),
        ("refused", "empty", 3),
        ("wanted", None, None),
        ("refused", "forgotten", None),
    ]
    return {
        "clusters": [{"id": 1, "made": DAY}],
        "images": [
            {"store_key": None, **row, "id": number, "fetched": DAY, "cluster_id": 1}
            for number, row in enumerate(images, 1)
        ],
        "posts": [
            {"id": 1, "site": "lamoda", "site_id": "1", "url": "u", "seen": DAY, "record": b""}
        ],
        "sightings": [
            {
                "post_id": 1,
                "position": position,
                "url": f"https://x.test/{position}.jpg",
                "fallbacks": "",
                "state": state,
                "reason": reason,
                "image_id": image,
            }
            for position, (state, reason, image) in enumerate(sightings)
        ],
        "fingerprints": [
            {"image_id": 1, "views": b"v" * 64, "looks": b"p" * 2432, "compared": True}
        ],
        "resemblances": [{"one_id": 1, "other_id": 2, "mirrored": False, "likeness": 0.95}],
        "judgements": [
            {
                "image_id": 1,
                "label": "polo",
                "model": "m:1",
                "verdict": "mistake",
                "suggested": "dress",
                "probability": 0.9,
                "given": 0.04,
                "margin": 0.86,
                "cost": 0.9,
                "nearest": json.dumps(NEAREST, ensure_ascii=False),
                "made": DAY,
            }
        ],
        "workers": [{"machine": "m", "process": 1, "born": "9", "since": DAY, "beat": DAY}],
        "asked_hashtags": [
            {"site": "instagram", "account": "a", "hashtag": "x", "allowed": 30, "asked": DAY}
        ],
        "forgotten": [
            {"kind": "image", "digest": "d", "whole": b"12345678", "who": "anna", "made": DAY}
        ],
        "crop_decisions": [
            {"image_id": 1, "model": "m", "zone": "", "whole": True, "who": "anna", "made": DAY}
        ],
    }


def make_0013(url: sa.URL) -> None:
    """Make a catalogue of revision 0013 with rows."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0013")
        for name, rows in rows_of_0013().items():
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            given = [
                {
                    key: datetime.fromisoformat(str(value))
                    if isinstance(table.c[key].type, sa.DateTime)
                    else value
                    for key, value in row.items()
                }
                for row in rows
            ]
            connection.execute(table.insert(), given)
    engine.dispose()


@pytest.fixture
def postgres_template(postgres_template: tuple[sa.Engine, str]) -> tuple[sa.Engine, str]:
    """Start from an empty database."""
    return postgres_template[0], "template1"


@pytest.mark.usefixtures("backend")
def test_rows_of_0013_are_migrated(tmp_path: Path) -> None:
    address = catalogue_of(tmp_path)
    make_0013(catalogue_url(address))
    with open_catalogue(address)() as session:
        images = session.execute(sa.select(ImageRow.state, ImageRow.reason).order_by(ImageRow.id))
        assert [tuple(row) for row in images] == [
            ("stored", None),
            ("stored", None),
            ("rejected", "empty"),
        ]
        sightings = session.execute(
            sa.select(Sighting.state, Sighting.reason).order_by(Sighting.position)
        )
        assert [tuple(row) for row in sightings] == [
            ("stored", None),
            ("stored", None),
            ("rejected", "empty"),
            ("pending", None),
            ("rejected", "taken down"),
        ]
        assert session.scalars(sa.select(NearDuplicateRow.similarity)).all() == [0.95]
        verdict = session.scalars(sa.select(TagVerdictRow)).one()
        assert (verdict.verdict, verdict.tag_probability) == ("mistake", 0.04)
        assert json.loads(verdict.nearest) == [
            {"sha256": "0" * 64, "label": 'a "likeness": 3', "similarity": 0.91},
            {"sha256": "1" * 64, "label": "платье", "similarity": 0.5},
        ]
        assert session.scalars(sa.select(FingerprintRow.pixels)).all() == [b"p" * 2432]
        worker = session.scalars(sa.select(Worker)).one()
        assert (worker.process_started, worker.run_started) == ("9", worker.heartbeat)
        requested = session.scalars(sa.select(RequestedHashtag.requested)).one()
        assert f"{requested}" == DAY == f"{worker.heartbeat}"
        assert session.scalars(sa.select(TakedownRow.view_hash)).all() == [b"12345678"]
        assert session.scalars(sa.select(CropDecision.keep_whole)).all() == [True]
        indexes = sa.inspect(session.connection()).get_indexes("resemblances")
        assert [(index["name"], index["column_names"]) for index in indexes] == [
            ("ix_resemblances_similarity", ["similarity"])
        ]


def test_the_catalogue_of_0013_is_backed_up(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    make_0013(catalogue_url(str(path)))
    open_catalogue(str(path))
    (copy,) = (file for file in tmp_path.iterdir() if ".before-" in file.name)
    with sqlite3.connect(copy) as connection:
        states = connection.execute("SELECT state FROM sightings ORDER BY position").fetchall()
    assert [state for (state,) in states] == ["stored", "stored", "refused", "wanted", "refused"]


@pytest.mark.usefixtures("backend")
def test_an_archive_of_0013_is_imported(tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite"
    make_0013(catalogue_url(str(old)))
    archive = tmp_path / "all.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(old, CATALOGUE)
        for seed in range(2):
            photo = tmp_path / f"{seed}.jpg"
            photo.write_bytes(photo_bytes(seed))
            key = ImageStore.key(sha256_of(photo.read_bytes()), "jpg")
            tar.add(photo, f"images/{key}")
    sessions, store = open_catalogue(catalogue_of(tmp_path)), ImageStore(tmp_path / "images")
    done = import_archive(sessions, store, archive)
    assert (done.images, done.posts, done.lost) == (2, 1, 0)
    with sessions() as session:
        states = session.scalars(sa.select(Sighting.state).order_by(Sighting.position)).all()
        assert sorted(states) == ["pending", "rejected", "rejected", "stored", "stored"]
        assert session.scalars(sa.select(NearDuplicateRow.similarity)).all() == [0.95]
        (nearest,) = session.scalars(sa.select(TagVerdictRow.nearest))
        assert [photo["similarity"] for photo in json.loads(nearest)] == [0.91, 0.5]
