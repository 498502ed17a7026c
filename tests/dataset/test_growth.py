"""Stable splits, leaks and unusual catalogues."""

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from PIL import Image, ImageOps

from dataset.build import preview_build
from dataset.catalogue.models import ImageRow, KeptSplit
from dataset.errors import Failure
from dataset.export.build_result import BuildOptions
from dataset.selection.groups import LINKS_TWO_SPLITS
from dataset.vocabulary import load_vocabulary
from tests.dataset.duplicates.test_pipeline import drawn, jpeg
from tests.dataset.test_build import bytes_below, run
from tests.support.catalogue_data import Filling, photo_bytes


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path)


def split_of(filling: Filling) -> dict[str, str]:
    rows = pq.read_table(filling.folder / "splits" / "manifest.parquet").to_pylist()
    return {row["sha256"]: row["split"] for row in rows}


def test_a_larger_build_moves_no_photo_and_keeps_the_ratios(filling: Filling) -> None:
    filling.products("polo", 40, 0)
    run(filling)
    before = split_of(filling)
    filling.products("polo", 160, 1000)
    filling.products("dress", 50, 5000)
    built = run(filling)
    after = split_of(filling)
    assert before.items() <= after.items()
    count = Counter((item.label, item.split) for item in built.items)
    assert [count["polo", s] for s in ("train", "validation", "test")] == [160, 20, 20]
    assert [count["dress", s] for s in ("train", "validation", "test")] == [40, 5, 5]
    assert built.deviations == []
    assert built.reused == 40


def test_a_better_copy_keeps_the_split_of_the_photo(filling: Filling) -> None:
    filling.products("polo", 20, 0)
    filling.image(jpeg(drawn(1)), filling.post("small", "polo"))
    run(filling)
    (small,) = [item for item in run(filling).items if item.photo.width == 280]
    filling.image(jpeg(drawn(1).resize((560, 720))), filling.post("large", "polo"))
    (large,) = [item for item in run(filling).items if item.photo.width == 560]
    assert large.split == small.split


def test_new_splits_ignore_earlier_builds(filling: Filling) -> None:
    filling.products("polo", 30, 0)
    run(filling)
    filling.products("polo", 30, 1000)
    kept = split_of(filling)
    run(filling, new_splits=True)
    assert not kept.items() <= split_of(filling).items()
    with filling.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(KeptSplit)) == 60


def test_a_photo_that_links_two_existing_splits_is_excluded(filling: Filling) -> None:
    filling.products("polo", 20, 0)
    built = run(filling)
    post_of = {item.split: item.photo.posts[0].id for item in built.items}
    filling.image(photo_bytes(900), post_of["train"], post_of["test"])
    before = split_of(filling)
    built = run(filling)
    assert built.exclusions.counts[LINKS_TWO_SPLITS] == 1
    assert split_of(filling) == before


def test_all_photos_of_an_author_are_in_one_split(filling: Filling) -> None:
    for number in range(40):
        post = filling.post(f"p{number}", "polo", author=f"author {number % 13}")
        filling.image(photo_bytes(number), post)
    splits: dict[str | None, set[str]] = {}
    for item in run(filling).items:
        splits.setdefault(item.photo.posts[0].author, set()).add(item.split)
    assert len(splits) == 13
    assert all(len(found) == 1 for found in splits.values())


def test_possible_near_duplicates_stay_in_one_split(filling: Filling) -> None:
    for number in range(12):
        recoloured = Image.merge("RGB", drawn(number).split()[::-1])
        filling.image(jpeg(drawn(number)), filling.post(f"a{number}", "polo"))
        filling.image(jpeg(recoloured), filling.post(f"b{number}", "polo"))
    built = run(filling)
    assert len(built.items) == 24
    assert len({item.group for item in built.items}) == 12
    assert built.audit.leaks == []


def test_a_build_clusters_copies_first(filling: Filling) -> None:
    filling.products("polo", 10, 0)
    for name, photo in (
        ("plain", drawn(1)),
        ("mirrored", ImageOps.mirror(drawn(1))),
        ("framed", ImageOps.expand(drawn(1), 25, "white")),
    ):
        filling.image(jpeg(photo), filling.post(name, "polo"))
    built = run(filling)
    assert len(built.items) == 11
    assert built.exclusions.counts["duplicate of another photo"] == 2


def test_a_second_build_renders_only_changed_photos(filling: Filling) -> None:
    filling.products("polo", 12, 0)
    assert run(filling).reused == 0
    first = bytes_below(filling.folder / "splits")
    victim = next((filling.folder / "splits" / "train" / "polo").glob("*.jpg"))
    victim.write_bytes(photo_bytes(77))
    assert run(filling).reused == 11
    assert bytes_below(filling.folder / "splits") == first
    assert run(filling, size=48).reused == 0
    assert not (filling.folder / "splits" / "photos").exists()


@pytest.mark.parametrize("name", ["folders", "webdataset", "parquet", "tfrecord"])
def test_two_builds_of_any_format_are_equal_to_the_byte(filling: Filling, name: str) -> None:
    filling.products("polo", 10, 0)
    filling.products("🔥 платье", 10, 100)
    run(filling, format=name)
    first = bytes_below(filling.folder / "splits")
    run(filling, format=name)
    assert bytes_below(filling.folder / "splits") == first


def test_a_build_with_leaks_is_discarded(filling: Filling, monkeypatch: pytest.MonkeyPatch) -> None:
    filling.products("polo", 10, 0)
    run(filling)
    before = bytes_below(filling.folder / "splits")
    for number in range(10):
        filling.image(jpeg(drawn(1), 60 + number), filling.post(f"c{number}", "polo"))
    # The plan does not know that the photos are copies.
    monkeypatch.setattr("dataset.build.dedup", lambda *_: None)
    monkeypatch.setattr("dataset.build.compared_photos", lambda *_: [])
    with pytest.raises(Failure, match="leaks between splits"):
        run(filling)
    assert bytes_below(filling.folder / "splits") == before
    with filling.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(KeptSplit)) == 10


def test_similar_crops_of_different_photos_stay_in_one_split(
    filling: Filling, monkeypatch: pytest.MonkeyPatch
) -> None:
    filling.products("polo", 10, 0)
    for number in range(10):
        filling.image(jpeg(drawn(1), 60 + number), filling.post(f"c{number}", "polo"))
    monkeypatch.setattr("dataset.build.dedup", lambda *_: None)
    built = run(filling)
    alike = {item.split for item in built.items if item.photo.width == 280}
    assert len(alike) == 1
    assert built.audit.leaks == []


def test_one_giant_cluster_is_one_photo(filling: Filling) -> None:
    for number in range(40):
        out = io.BytesIO()
        drawn(1).save(out, "JPEG", quality=50 + number)
        filling.image(out.getvalue(), filling.post(f"p{number}", "polo"))
    built = run(filling, min_per_class=1)
    assert (len(built.items), built.exclusions.counts["duplicate of another photo"]) == (1, 39)
    assert [item.split for item in built.items] == ["train"]


def test_one_giant_group_is_reported(filling: Filling) -> None:
    for number in range(30):
        filling.image(photo_bytes(number), filling.post(f"p{number}", "polo", author="anna"))
    built = run(filling)
    assert {item.split for item in built.items} == {"train"}
    assert built.deviations[0].startswith("polo: train has 100.0% rather than 80.0% of 30")
    assert "30 of them" in built.deviations[0]


def test_emoji_and_cyrillic_labels_are_built_and_described(filling: Filling) -> None:
    filling.products("🔥", 10, 0)
    filling.products("кимоно/новое", 10, 100)
    run(filling)
    out = filling.folder / "splits"
    labels = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    assert labels["labels"] == ["кимоно/новое", "🔥"]
    assert (out / "train" / "🔥").is_dir()
    assert "🔥" in (out / "report.html").read_text(encoding="utf-8")


def test_a_dry_run_reads_no_photo_and_shows_the_plan(filling: Filling) -> None:
    filling.products("polo", 20, 0)
    options = BuildOptions(
        catalogue=filling.catalogue,
        images=filling.folder / "none",
        out=filling.folder / "splits",
        min_per_class=5,
    )
    plan = preview_build(options, load_vocabulary())
    assert not (filling.folder / "splits").exists()
    built = run(filling)
    assert {one.photo.sha256: name for one, name in zip(plan.images, plan.splits, strict=True)} == {
        item.photo.sha256: item.split for item in built.items
    }


def test_images_are_untouched(filling: Filling) -> None:
    filling.products("polo", 6, 0)
    before = bytes_below(filling.folder / "images")
    run(filling)
    assert bytes_below(filling.folder / "images") == before
    with filling.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ImageRow)) == 6
