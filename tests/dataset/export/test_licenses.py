"""Builds say the licenses of their photos, and whether they may be published."""

import csv
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.catalogue.models import Credit, Sighting
from tests.dataset.test_build import run
from tests.support.catalogue_data import Filling, photo_bytes

BY_SA = Credit("by-sa", "https://creativecommons.org/licenses/by-sa/4.0/", "Anna", "by Anna", "p")


def set_credits(filling: Filling, credit: Credit, where: sa.ColumnElement[bool]) -> None:
    with filling.sessions.begin() as session:
        session.execute(sa.update(Sighting).where(where).values(**vars(credit)))


def attribution(folder: Path) -> list[dict[str, str]]:
    with (folder / "splits" / "attribution.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    """Return a catalogue with twelve photos of by-sa, and eight of unknown license."""
    filling = Filling(tmp_path)
    filling.products("dress", 12, 0)
    filling.products("polo", 8, 100)
    set_credits(filling, BY_SA, Sighting.image_id <= 12)
    return filling


def test_build_of_free_photos_may_be_published(filling: Filling) -> None:
    result = run(filling, licenses=("by-sa", "cc0"))
    assert result.exclusions.counts["license not requested"] == 8
    found = attribution(filling.folder)
    assert len(found) == 12
    first = {name: value for name, value in found[0].items() if name not in ("path", "sha256")}
    assert first == {
        "license": "by-sa",
        "license_url": "https://creativecommons.org/licenses/by-sa/4.0/",
        "author": "Anna",
        "attribution": "by Anna",
        "source_page": "p",
    }
    card = (filling.folder / "splits" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card and "- by-sa: 12" in card
    assert "may be published under [CC BY-SA 4.0]" in card
    about = json.loads((filling.folder / "splits" / "croissant.json").read_bytes())
    assert about["license"] == "https://creativecommons.org/licenses/by-sa/4.0/"
    assert about["creditText"].startswith("Photos by Anna. attribution.csv names")


def test_build_with_other_photos_may_not(filling: Filling) -> None:
    run(filling)
    counts = [row["license"] for row in attribution(filling.folder)]
    assert (counts.count("by-sa"), counts.count("unknown")) == (12, 8)
    card = (filling.folder / "splits" / "README.md").read_text(encoding="utf-8")
    assert "license: other" in card and "may not be published: 8 of 20 photos" in card


def test_licensed_copy_is_used_in_place_of_a_better_one(filling: Filling) -> None:
    larger = photo_bytes(0, (240, 320))
    filling.image(larger, filling.post("larger", "dress"), cluster=1)
    result = run(filling)
    assert larger in [filling.store.read(item.photo.store_key) for item in result.items]
    result = run(filling, licenses=("by-sa",))
    assert larger not in [filling.store.read(item.photo.store_key) for item in result.items]
    assert len(result.items) == 12


def test_least_demanding_license_of_a_file_counts(filling: Filling) -> None:
    photo = photo_bytes(500)
    posts = [filling.post(f"x{number}", "dress") for number in range(3)]
    filling.image(photo, *posts)
    for post, code in zip(posts, ("by-nc", "by", None), strict=True):
        set_credits(filling, Credit(code, author=code), Sighting.post_id == post)
    result = run(filling, licenses=("by",), min_per_class=1)
    assert [item.photo.credit for item in result.items] == [Credit("by", author="by")]
