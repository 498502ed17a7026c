"""Builds say the licenses of their photos, and whether they may be published."""

import csv
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.catalogue.models import Credit, Sighting
from tests.dataset.test_build import run
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

BY_SA = Credit("by-sa", "https://creativecommons.org/licenses/by-sa/4.0/", "Anna", "by Anna", "p")


def set_credits(builder: CatalogueBuilder, credit: Credit, where: sa.ColumnElement[bool]) -> None:
    with builder.sessions.begin() as session:
        session.execute(sa.update(Sighting).where(where).values(**vars(credit)))


def attribution(folder: Path) -> list[dict[str, str]]:
    with (folder / "splits" / "attribution.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def builder(tmp_path: Path) -> CatalogueBuilder:
    """Return a catalogue with twelve photos of by-sa, and eight of unknown license."""
    builder = CatalogueBuilder(tmp_path)
    builder.products("dress", 12, 0)
    builder.products("polo", 8, 100)
    set_credits(builder, BY_SA, Sighting.image_id <= 12)
    return builder


def test_build_of_free_photos_may_be_published(builder: CatalogueBuilder) -> None:
    result = run(builder, licenses=("by-sa", "cc0"))
    assert result.exclusions.counts["license not requested"] == 8
    found = attribution(builder.folder)
    assert len(found) == 12
    first = {name: value for name, value in found[0].items() if name not in ("path", "sha256")}
    assert first == {
        "license": "by-sa",
        "license_url": "https://creativecommons.org/licenses/by-sa/4.0/",
        "author": "Anna",
        "attribution": "by Anna",
        "source_page": "p",
    }
    card = (builder.folder / "splits" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card and "- by-sa: 12" in card
    assert "may be published under [CC BY-SA 4.0]" in card
    about = json.loads((builder.folder / "splits" / "croissant.json").read_bytes())
    assert about["license"] == "https://creativecommons.org/licenses/by-sa/4.0/"
    assert about["creditText"].startswith("Photos by Anna. attribution.csv names")


def test_build_with_other_photos_may_not(builder: CatalogueBuilder) -> None:
    run(builder)
    counts = [row["license"] for row in attribution(builder.folder)]
    assert (counts.count("by-sa"), counts.count("unknown")) == (12, 8)
    card = (builder.folder / "splits" / "README.md").read_text(encoding="utf-8")
    assert "license: other" in card and "may not be published: 8 of 20 photos" in card


def test_licensed_copy_is_used_in_place_of_a_better_one(builder: CatalogueBuilder) -> None:
    larger = photo_bytes(0, (240, 320))
    builder.image(larger, builder.post("larger", "dress"), cluster=1)
    result = run(builder)
    assert larger in [builder.store.read(item.photo.store_key) for item in result.items]
    result = run(builder, licenses=("by-sa",))
    assert larger not in [builder.store.read(item.photo.store_key) for item in result.items]
    assert len(result.items) == 12


def test_least_demanding_license_of_a_file_counts(builder: CatalogueBuilder) -> None:
    photo = photo_bytes(500)
    posts = [builder.post(f"x{number}", "dress") for number in range(3)]
    builder.image(photo, *posts)
    for post, code in zip(posts, ("by-nc", "by", None), strict=True):
        set_credits(builder, Credit(code, author=code), Sighting.post_id == post)
    result = run(builder, licenses=("by",), min_per_class=1)
    assert [item.photo.credit for item in result.items] == [Credit("by", author="by")]
