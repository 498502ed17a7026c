"""Builds from a catalogue to splits on disk."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from PIL import Image

from dataset.build import build
from dataset.catalogue.models import ImageRow, LabelDecision, SplitAssignment
from dataset.errors import BadInput, Failure
from dataset.export.layout import BuildOptions, BuildResult, label_folder
from dataset.images.io import sha256_of
from dataset.selection.crops import PoseOptions
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes


@pytest.fixture
def builder(tmp_path: Path) -> CatalogueBuilder:
    return CatalogueBuilder(tmp_path)


def run(builder: CatalogueBuilder, **chosen: object) -> BuildResult:
    defaults = {"min_per_class": 5, "size": 64, "pose": PoseOptions(crop="none")}
    options = defaults | {"images": builder.folder / "images"} | chosen
    out = builder.folder / "splits"
    return build(
        BuildOptions(catalogue=builder.catalogue, out=out, **options),  # type: ignore[arg-type]
        load_vocabulary(multi_label=bool(chosen.get("multi_label"))),
    )


def bytes_below(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "build.json"
    }


def test_photos_stand_under_split_and_label_letterboxed(builder: CatalogueBuilder) -> None:
    builder.products("polo", 20, 0)
    builder.products("платье", 10, 100)
    run(builder)
    out = builder.folder / "splits"
    count = Counter(path.parts[-3:-1] for path in out.glob("*/*/*.jpg"))
    assert count == {
        ("train", "polo"): 16,
        ("validation", "polo"): 2,
        ("test", "polo"): 2,
        ("train", "dress"): 8,
        ("validation", "dress"): 1,
        ("test", "dress"): 1,
    }
    with Image.open(next(out.glob("train/polo/*.jpg"))) as photo:
        assert (photo.size, photo.format) == ((64, 64), "JPEG")
        # 120 x 160 in 64 x 64: 48 wide, so 8 white columns on either side.
        assert min(photo.convert("L").getpixel((x, 32)) for x in (1, 62)) > 245  # type: ignore[type-var, operator]


def test_the_manifest_has_a_row_a_photo(builder: CatalogueBuilder) -> None:
    builder.products("polo", 10, 0)
    run(builder)
    out = builder.folder / "splits"
    rows = pq.read_table(out / "manifest.parquet").to_pylist()
    assert [row["path"] for row in rows] == sorted(
        path.relative_to(out).as_posix() for path in out.glob("*/*/*.jpg")
    )
    row = rows[0]
    assert row["path"].split("/")[:2] == [row["split"], row["label"]]
    assert row["hashtags"] == ["polo"]
    assert row["post_url"].startswith("https://x.test/p/polo-")
    original = builder.store.root / (
        f"{row['sha256'][:2]}/{row['sha256'][2:4]}/{row['sha256']}.jpg"
    )
    assert hashlib.sha256(original.read_bytes()).hexdigest() == row["sha256"]
    labels = json.loads((out / "labels.json").read_text())
    assert labels["labels"] == ["polo"]


def test_one_image_a_cluster_the_best_copy(builder: CatalogueBuilder) -> None:
    builder.products("polo", 9, 0)
    small = builder.image(photo_bytes(50), builder.post("a", "polo"))
    builder.image(photo_bytes(50, (240, 320)), builder.post("b", "polo"), cluster=small)
    built = run(builder)
    assert len(built.items) == 10
    assert built.exclusions.counts["duplicate of another photo"] == 1
    photos = [item.photo for item in built.items]
    assert [(p.width, p.height) for p in photos if p.cluster == small] == [(240, 320)]


def test_what_one_product_or_cluster_ties_together_is_in_one_split(
    builder: CatalogueBuilder,
) -> None:
    builder.products("polo", 30, 0)
    for chain in range(10):
        posts = [builder.post(f"chain{chain}-{i}", "polo") for i in range(2)]
        builder.image(photo_bytes(1000 + 3 * chain), posts[0])
        shared = builder.image(photo_bytes(1001 + 3 * chain), *posts)
        builder.image(photo_bytes(1001 + 3 * chain, quality=60), posts[1], cluster=shared)
        builder.image(photo_bytes(1002 + 3 * chain), posts[1])
    built = run(builder)
    split_of_post: dict[int, set[str]] = {}
    for item in built.items:
        for post in item.photo.posts:
            split_of_post.setdefault(post.id, set()).add(item.split)
    assert len(built.items) == 60
    assert all(len(splits) == 1 for splits in split_of_post.values())


def test_an_image_under_two_labels_is_left_out_and_counted(builder: CatalogueBuilder) -> None:
    builder.products("polo", 6, 0)
    builder.image(photo_bytes(90), builder.post("both", "поло", "джинсы"))
    builder.image(photo_bytes(91), builder.post("same", "поло", "poloshirt"))
    built = run(builder)
    assert len(built.items) == 7
    assert built.exclusions.counts["conflict of labels"] == 1


def test_a_persons_decision_is_above_hashtags(builder: CatalogueBuilder) -> None:
    builder.products("polo", 7, 0)
    cluster = builder.image(photo_bytes(90), builder.post("wrong", "dress"))
    out = builder.image(photo_bytes(91), builder.post("out", "polo"))
    with builder.sessions.begin() as session:
        for of, label in ((cluster, "polo"), (out, None)):
            image = session.scalars(sa.select(ImageRow.id).filter_by(cluster_id=of)).one()
            session.add(LabelDecision(image_id=image, label=label, who="anna"))
    built = run(builder)
    assert Counter(item.label for item in built.items) == {"polo": 8}
    assert built.exclusions.counts["excluded by a reviewer"] == 1


def test_small_classes_are_left_out_and_named(builder: CatalogueBuilder) -> None:
    builder.products("polo", 6, 0)
    builder.products("кимоно", 3, 100)
    built = run(builder)
    assert built.small_classes == {"кимоно": 3}
    assert {item.label for item in built.items} == {"polo"}


def test_no_class_left_fails_and_says_what_to_crawl(builder: CatalogueBuilder) -> None:
    builder.products("polo", 4, 0)
    with pytest.raises(Failure, match=r"polo 4.*crawl lamoda --tags polo") as caught:
        run(builder)
    assert caught.value.exit_code == 1
    assert not list(builder.folder.glob(".splits*"))


def test_an_empty_catalogue_fails_and_says_to_crawl(builder: CatalogueBuilder) -> None:
    with pytest.raises(Failure, match="no photos; crawl first"):
        run(builder)


def test_max_per_class_and_labels_narrow_the_build(builder: CatalogueBuilder) -> None:
    builder.products("polo", 12, 0)
    builder.products("dress", 12, 100)
    built = run(builder, max_per_class=8, labels=("поло",))
    assert Counter(item.label for item in built.items) == {"polo": 8}
    assert built.exclusions.counts["over --max-per-class"] == 4
    assert built.exclusions.counts["label not requested"] == 12


def test_two_builds_are_equal_to_the_byte_but_for_the_date(builder: CatalogueBuilder) -> None:
    builder.products("polo", 10, 0)
    run(builder)
    first = bytes_below(builder.folder / "splits")
    run(builder)
    assert bytes_below(builder.folder / "splits") == first
    run(builder, seed=5)
    assert bytes_below(builder.folder / "splits") != first


def test_the_seed_changes_only_which_photo_is_where(builder: CatalogueBuilder) -> None:
    builder.products("polo", 20, 0)
    first = Counter(item.split for item in run(builder, seed=1).items)
    assert first == Counter(item.split for item in run(builder, seed=2).items)


def test_a_missing_photo_is_named_and_the_rest_is_built(builder: CatalogueBuilder) -> None:
    builder.products("polo", 10, 0)
    lost = next((builder.folder / "images").glob("*/*/*.jpg"))
    lost.unlink()
    built = run(builder)
    assert len(built.items) == 9
    assert list(built.unreadable.values()) == ["file missing"]
    assert next(iter(built.unreadable)).endswith(lost.name)


def test_the_wrong_image_folder_is_named(builder: CatalogueBuilder) -> None:
    builder.products("polo", 6, 0)
    with pytest.raises(Failure, match="--images"):
        run(builder, images=builder.folder / "elsewhere")
    assert not (builder.folder / "splits").exists()


def test_somebody_elses_folder_is_not_overwritten(builder: CatalogueBuilder) -> None:
    builder.products("polo", 6, 0)
    theirs = builder.folder / "splits" / "thesis.docx"
    theirs.parent.mkdir()
    theirs.write_text("important")
    with pytest.raises(BadInput, match="is not a build of fashion-tagger"):
        run(builder)
    assert theirs.read_text() == "important"


def test_a_build_killed_while_changing_places_is_mended(builder: CatalogueBuilder) -> None:
    builder.products("polo", 6, 0)
    run(builder)
    out = builder.folder / "splits"
    before = bytes_below(out)
    out.rename(builder.folder / ".splits.before")
    with pytest.raises(Failure):
        run(builder, min_per_class=100)
    assert bytes_below(out) == before


def test_the_catalogue_remembers_the_build(builder: CatalogueBuilder) -> None:
    builder.products("polo", 10, 0)
    built = run(builder)
    with builder.sessions() as session:
        kept = {(a.image_id, a.label, a.split) for a in session.scalars(sa.select(SplitAssignment))}
    assert kept == {(i.photo.image_id, i.label, i.split) for i in built.items}


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("polo", "polo"),
        ("рубашка поло", "рубашка поло"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        ("100%", "100%25"),
        ("c:\\d", "c%3A%5Cd"),
        ("🔥", "🔥"),
        (".hidden", "%2Ehidden"),
        ("con", "%63on"),
        ("com1.x", "%63om1.x"),
        ("concert", "concert"),
        ("я" * 200, "я" * 50 + "%7E" + sha256_of(("я" * 200).encode())[:24]),
    ],
)
def test_a_label_becomes_a_folder_that_any_system_takes(label: str, folder: str) -> None:
    assert label_folder(label) == folder


def test_words_of_shops_label_facets_in_multi_label_builds_only(builder: CatalogueBuilder) -> None:
    for number in range(6):
        colour = "тёмно-синий" if number % 2 else "белый"
        post = builder.post(f"p{number}", "юбка", attributes=(colour, "женский", "юбки"))
        builder.image(photo_bytes(number), post)
    manifest = builder.folder / "splits" / "manifest.parquet"
    run(builder, multi_label=True, min_per_class=1)
    rows = pq.read_table(manifest).to_pylist()
    assert Counter(tuple(row["labels"]) for row in rows) == {
        ("skirt", "navy"): 3,
        ("skirt", "white"): 3,
    }
    assert {tuple(row["hashtags"]) for row in rows} == {("юбка",)}
    run(builder, min_per_class=1)
    assert {row["label"] for row in pq.read_table(manifest).to_pylist()} == {"skirt"}
