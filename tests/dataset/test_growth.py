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
from dataset.catalogue.models import ImageRow, KeptSplit, NearDuplicateRow
from dataset.errors import Failure
from dataset.export.layout import BuildOptions
from dataset.selection.splits import LINKS_TWO_SPLITS
from dataset.vocabulary import load_vocabulary
from tests.dataset.duplicates.test_pipeline import drawn, jpeg
from tests.dataset.test_build import bytes_below, run
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes


@pytest.fixture
def builder(tmp_path: Path) -> CatalogueBuilder:
    return CatalogueBuilder(tmp_path)


def split_of(builder: CatalogueBuilder) -> dict[str, str]:
    rows = pq.read_table(builder.folder / "splits" / "manifest.parquet").to_pylist()
    return {row["sha256"]: row["split"] for row in rows}


def test_a_larger_build_moves_no_photo_and_keeps_the_ratios(builder: CatalogueBuilder) -> None:
    builder.products("polo", 10, 0)
    run(builder)
    before = split_of(builder)
    builder.products("polo", 40, 1000)
    builder.products("dress", 20, 5000)
    built = run(builder)
    after = split_of(builder)
    assert before.items() <= after.items()
    count = Counter((item.label, item.split) for item in built.items)
    assert [count["polo", s] for s in ("train", "validation", "test")] == [40, 5, 5]
    assert [count["dress", s] for s in ("train", "validation", "test")] == [16, 2, 2]
    assert built.deviations == []
    assert built.reused == 10


def test_a_better_copy_keeps_the_split_of_the_photo(builder: CatalogueBuilder) -> None:
    builder.products("polo", 20, 0)
    builder.image(jpeg(drawn(1).resize((210, 270))), builder.post("small", "polo"))
    run(builder)
    (small,) = [item for item in run(builder).items if item.photo.width == 210]
    builder.image(jpeg(drawn(1)), builder.post("large", "polo"))
    (large,) = [item for item in run(builder).items if item.photo.width == 280]
    assert large.split == small.split


def test_new_splits_ignore_earlier_builds(builder: CatalogueBuilder) -> None:
    builder.products("polo", 30, 0)
    run(builder)
    builder.products("polo", 30, 1000)
    kept = split_of(builder)
    run(builder, new_splits=True)
    assert not kept.items() <= split_of(builder).items()
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(KeptSplit)) == 60


def test_a_photo_that_links_two_existing_splits_is_excluded(builder: CatalogueBuilder) -> None:
    builder.products("polo", 20, 0)
    built = run(builder)
    post_of = {item.split: item.photo.posts[0].id for item in built.items}
    builder.image(photo_bytes(900), post_of["train"], post_of["test"])
    before = split_of(builder)
    built = run(builder)
    assert built.exclusions.counts[LINKS_TWO_SPLITS] == 1
    assert split_of(builder) == before


def test_all_photos_of_an_author_are_in_one_split(builder: CatalogueBuilder) -> None:
    for number in range(40):
        post = builder.post(f"p{number}", "polo", author=f"author {number % 13}")
        builder.image(photo_bytes(number), post)
    splits: dict[str | None, set[str]] = {}
    for item in run(builder).items:
        splits.setdefault(item.photo.posts[0].author, set()).add(item.split)
    assert len(splits) == 13
    assert all(len(found) == 1 for found in splits.values())


def test_possible_near_duplicates_stay_in_one_split(builder: CatalogueBuilder) -> None:
    for number in range(12):
        recoloured = Image.merge("RGB", drawn(number).split()[::-1])
        builder.image(jpeg(drawn(number)), builder.post(f"a{number}", "polo"))
        builder.image(jpeg(recoloured), builder.post(f"b{number}", "polo"))
    built = run(builder)
    assert len(built.items) == 24
    assert len({item.group for item in built.items}) == 12
    assert built.audit.leaks == []


def test_a_build_clusters_copies_first(builder: CatalogueBuilder) -> None:
    builder.products("polo", 10, 0)
    for name, photo in (
        ("plain", drawn(1)),
        ("mirrored", ImageOps.mirror(drawn(1))),
        ("framed", ImageOps.expand(drawn(1), 25, "white")),
    ):
        builder.image(jpeg(photo), builder.post(name, "polo"))
    built = run(builder)
    assert len(built.items) == 11
    assert built.exclusions.counts["duplicate of another photo"] == 2


def test_a_second_build_renders_only_changed_photos(builder: CatalogueBuilder) -> None:
    builder.products("polo", 12, 0)
    assert run(builder).reused == 0
    first = bytes_below(builder.folder / "splits")
    victim = next((builder.folder / "splits" / "train" / "polo").glob("*.jpg"))
    victim.write_bytes(photo_bytes(77))
    assert run(builder).reused == 11
    assert bytes_below(builder.folder / "splits") == first
    assert run(builder, size=48).reused == 0
    assert not (builder.folder / "splits" / "photos").exists()


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("webdataset", "tfrecord")),
        *("folders", "parquet"),
    ],
)
def test_two_builds_of_any_format_are_equal_to_the_byte(
    builder: CatalogueBuilder, name: str
) -> None:
    builder.products("polo", 10, 0)
    builder.products("🔥 платье", 10, 100)
    run(builder, format=name)
    first = bytes_below(builder.folder / "splits")
    run(builder, format=name)
    assert bytes_below(builder.folder / "splits") == first


def test_a_build_with_leaks_is_discarded(
    builder: CatalogueBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.products("polo", 10, 0)
    run(builder)
    before = bytes_below(builder.folder / "splits")
    for number in range(10):
        builder.image(jpeg(drawn(1), 60 + number), builder.post(f"c{number}", "polo"))
    # The plan does not know that the photos are copies.
    monkeypatch.setattr("dataset.build.dedup", lambda *_, **__: None)
    monkeypatch.setattr("dataset.build.compare_candidates", lambda *_: [])
    monkeypatch.setattr("dataset.build.MAX_AUDITS", 1)
    with pytest.raises(Failure, match="leaks between splits"):
        run(builder)
    assert bytes_below(builder.folder / "splits") == before
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(KeptSplit)) == 10


@pytest.mark.parametrize("name", ["folders", "parquet"])
def test_copies_that_only_the_audit_finds_are_put_into_one_split(
    builder: CatalogueBuilder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    builder.products("polo", 10, 0)
    for number in range(10):
        builder.image(jpeg(drawn(1), 60 + number), builder.post(f"c{number}", "polo"))
    monkeypatch.setattr("dataset.build.dedup", lambda *_, **__: None)
    monkeypatch.setattr("dataset.build.compare_candidates", lambda *_: [])
    built = run(builder, format=name)
    alike = {item.split for item in built.items if item.photo.width == 280}
    assert len(alike) == 1 and len(built.items) == 20
    assert built.audit.leaks == [] and len(built.audit.linked) > 0
    # They are kept, so that an equal build gives equal bytes.
    first = bytes_below(builder.folder / "splits")
    assert run(builder, format=name).audit.linked == []
    assert bytes_below(builder.folder / "splits") == first


def test_similar_crops_of_different_photos_stay_in_one_split(
    builder: CatalogueBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.products("polo", 10, 0)
    for number in range(10):
        builder.image(jpeg(drawn(1), 60 + number), builder.post(f"c{number}", "polo"))
    monkeypatch.setattr("dataset.build.dedup", lambda *_, **__: None)
    built = run(builder)
    alike = {item.split for item in built.items if item.photo.width == 280}
    assert len(alike) == 1
    assert built.audit.leaks == []


def test_one_giant_cluster_is_one_photo(builder: CatalogueBuilder) -> None:
    for number in range(20):
        out = io.BytesIO()
        drawn(1).save(out, "JPEG", quality=50 + 2 * number)
        builder.image(out.getvalue(), builder.post(f"p{number}", "polo"))
    built = run(builder, min_per_class=1)
    assert (len(built.items), built.exclusions.counts["duplicate of another photo"]) == (1, 19)
    assert [item.split for item in built.items] == ["train"]


def test_one_giant_group_is_reported(builder: CatalogueBuilder) -> None:
    for number in range(30):
        builder.image(photo_bytes(number), builder.post(f"p{number}", "polo", author="anna"))
    built = run(builder)
    assert {item.split for item in built.items} == {"train"}
    assert built.deviations[0].startswith("polo: train has 100.0% rather than 80.0% of 30")
    assert "30 of them" in built.deviations[0]


def test_emoji_and_cyrillic_labels_are_built_and_described(builder: CatalogueBuilder) -> None:
    builder.products("🔥", 10, 0)
    builder.products("кимоно/новое", 10, 100)
    run(builder)
    out = builder.folder / "splits"
    labels = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    assert labels["labels"] == ["кимоно/новое", "🔥"]
    assert (out / "train" / "🔥").is_dir()
    assert "🔥" in (out / "report.html").read_text(encoding="utf-8")


def test_a_dry_run_reads_no_photo_and_shows_the_plan(builder: CatalogueBuilder) -> None:
    builder.products("polo", 20, 0)
    options = BuildOptions(
        catalogue=builder.catalogue,
        images=builder.folder / "none",
        out=builder.folder / "splits",
        min_per_class=5,
    )
    plan = preview_build(options, load_vocabulary())
    assert not (builder.folder / "splits").exists()
    built = run(builder)
    assert {one.photo.sha256: name for one, name in zip(plan.images, plan.splits, strict=True)} == {
        item.photo.sha256: item.split for item in built.items
    }


def test_images_are_untouched(builder: CatalogueBuilder) -> None:
    builder.products("polo", 6, 0)
    before = bytes_below(builder.folder / "images")
    run(builder)
    assert bytes_below(builder.folder / "images") == before
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ImageRow)) == 6


def changed(number: int) -> list[Image.Image]:
    """Return a photo, two copies of it and a collage with it."""
    photo = drawn(number)
    page = Image.new("RGB", (560, 360), "white")
    page.paste(photo, (280, 0))
    page.paste(drawn(number + 500), (0, 0))
    return [photo, ImageOps.expand(photo, 20, "white"), photo.resize((200, 257)), page]


def fill_in_order(builder: CatalogueBuilder, numbers: list[int]) -> None:
    for number in numbers:
        photo = changed(number // 4)[number % 4]
        builder.image(jpeg(photo, 88), builder.post(f"p{number}", "polo"))


def structure(builder: CatalogueBuilder) -> tuple[set, set]:
    """Return the clusters and the links of a catalogue by SHA-256."""
    with builder.sessions() as session:
        names = {image.id: image.sha256 for image in session.scalars(sa.select(ImageRow))}
        clusters: dict[int | None, set[str]] = {}
        for image in session.scalars(sa.select(ImageRow)):
            clusters.setdefault(image.cluster_id, set()).add(image.sha256)
        rows = session.scalars(
            sa.select(NearDuplicateRow).filter(NearDuplicateRow.relation != "none")
        )
        links = {(frozenset({names[r.one_id], names[r.other_id]}), r.relation) for r in rows}
    return {frozenset(members) for members in clusters.values()}, links


def test_clusters_links_and_splits_do_not_depend_on_the_order(tmp_path: Path) -> None:
    orders = [list(range(20)), [*range(19, -1, -1)]]
    results = []
    for number, order in enumerate(orders):
        folder = tmp_path / str(number)
        folder.mkdir()
        builder = CatalogueBuilder(folder)
        fill_in_order(builder, order)
        built = run(builder, min_per_class=2)
        assert built.audit.leaks == []
        results.append((*structure(builder), split_of(builder)))
    assert results[0] == results[1]
    clusters, links, _ = results[0]
    assert len(clusters) == 10
    assert len([relation for _, relation in links if relation == "part"]) >= 5


def test_the_clean_copy_is_used(builder: CatalogueBuilder) -> None:
    for number, copy in enumerate(changed(1)[:2]):
        builder.image(jpeg(copy, 88), builder.post(f"p{number}", "polo"))
    enlarged = drawn(1).resize((560, 720), Image.Resampling.BICUBIC)
    builder.image(jpeg(enlarged, 95), builder.post("large", "polo"))
    (item,) = run(builder, min_per_class=1).items
    assert (item.photo.width, item.photo.height) == drawn(1).size


def test_the_closest_pairs_across_splits_are_a_queue(builder: CatalogueBuilder) -> None:
    # Two photos of one garment on different backgrounds would be such a pair.
    for number in range(20):
        page = drawn(100 + number)
        page.paste(drawn(3).crop((40, 40, 140, 140)), (100, 120))
        builder.image(jpeg(page), builder.post(f"p{number}", "polo"))
    built = run(builder)
    with builder.sessions() as session:
        kept = session.scalars(sa.select(NearDuplicateRow).filter_by(relation="none")).all()
    assert len(kept) == len(built.audit.closest)
    assert built.audit.compared >= len(built.audit.closest)
