"""Crops of a build: key points are estimated once and saved, and the images are cropped."""

import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from PIL import Image

from dataset.build import build
from dataset.catalogue.models import CropDecision, CropRow, PoseRow, now
from dataset.cli import build_dataset
from dataset.errors import BadInput
from dataset.export import rendering
from dataset.export.layout import BuildOptions, BuildResult
from dataset.images.io import sha256_of
from dataset.pose.crop import BY_DECISION
from dataset.selection import crops
from dataset.selection.crops import PoseOptions
from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.drawing.product import draw_product
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes

PEOPLE = 6

pytestmark = pytest.mark.usefixtures("one_estimator")


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, one_estimator: None
) -> tuple[Path, BuildResult]:
    """Return a folder with drawn people in coats and an image of noise, and its first build."""
    folder = tmp_path_factory.mktemp("first")
    builder = CatalogueBuilder(folder)
    for seed in range(PEOPLE):
        path = folder / "drawn.png"
        draw_product("coat", seed).photo.save(path)
        builder.image(path.read_bytes(), builder.post(str(seed), "coat"))
    builder.image(photo_bytes(1), builder.post("noise", "coat"))
    built = run(builder)
    builder.sessions.kw["bind"].dispose()
    return folder, built


@pytest.fixture
def builder(first: tuple[Path, BuildResult], tmp_path: Path) -> CatalogueBuilder:
    """Return a copy of that folder, to be changed."""
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True)
    return CatalogueBuilder(tmp_path)


def run(builder: CatalogueBuilder, **chosen: object) -> BuildResult:
    options = BuildOptions(
        builder.catalogue,
        builder.folder / "images",
        builder.folder / "splits",
        min_per_class=1,
        pose=PoseOptions(**chosen),  # type: ignore[arg-type]
    )
    return build(options, load_vocabulary())


def test_found_once_and_kept_with_the_decision(
    first: tuple[Path, BuildResult], builder: CatalogueBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = first[1].items
    posed = [item.person_crop for item in found if item.person_crop]
    assert len(posed) == PEOPLE + 1
    people = [one for one in posed if one.crop.outcome == "person"]
    assert len(people) >= PEOPLE - 1
    with builder.sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(PoseRow)) == PEOPLE + 1
        kept = {row.image_id: row for row in session.scalars(sa.select(CropRow))}
    for item in found:
        assert item.person_crop
        row = kept[item.photo.image_id]
        assert (row.left, row.top, row.right, row.bottom) == item.person_crop.crop.box
        assert row.outcome == item.person_crop.crop.outcome and row.model.startswith("hrnet-small:")

    monkeypatch.setattr(crops, "_estimate", lambda *_: pytest.fail("looked again"))
    second = run(builder)
    for one, other in zip(found, second.items, strict=True):
        assert (
            one.person_crop and other.person_crop and one.person_crop.crop == other.person_crop.crop
        )


def test_the_manifest_the_card_and_the_sheet_say_what_was_kept(
    first: tuple[Path, BuildResult],
) -> None:
    folder, built = first[0] / "splits", first[1]
    rows = pq.read_table(folder / "manifest.parquet").to_pylist()
    for row, item in zip(rows, built.items, strict=True):
        assert item.person_crop and row["crop"] == item.person_crop.crop.outcome
        np.testing.assert_allclose(row["crop_box"], item.person_crop.crop.box, rtol=1e-6)
        assert len(row["key_points"]) == 3 * len(item.person_crop.model.joints.names)
    assert "## Crops" in (folder / "README.md").read_text()
    with Image.open(folder / "contact" / "crops.jpg") as sheet:
        assert sheet.width > 600


def test_renaming_labels_changes_no_crop(first: tuple[Path, BuildResult], tmp_path: Path) -> None:
    builder = CatalogueBuilder(tmp_path)
    tags = ("polo", "jeans", "hat", "shoes", "dress", "coat")
    for seed, tag in enumerate(tags):
        path = tmp_path / "drawn.png"
        draw_product("coat", seed).photo.save(path)
        builder.image(path.read_bytes(), builder.post(str(seed), tag))
    builder.image(photo_bytes(1), builder.post("noise", "polo"))
    renamed = run(builder).items
    assert {item.label for item in renamed} == set(tags)
    crops = {item.photo.sha256: item.person_crop for item in first[1].items}
    for item in renamed:
        before = crops[item.photo.sha256]
        assert before and item.person_crop and before.crop == item.person_crop.crop


@pytest.mark.parametrize("background", ["white", "blur"])
def test_the_background_is_replaced_where_a_person_is_found(
    first: tuple[Path, BuildResult], builder: CatalogueBuilder, background: str
) -> None:
    kept = {item.photo.sha256: item for item in first[1].items}
    before = {
        item.path: (builder.folder / "splits" / item.path).read_bytes() for item in kept.values()
    }
    changed = run(builder, background=background)
    assert changed.reused == 1
    for item in changed.items:
        crop = item.person_crop
        assert crop and kept[item.photo.sha256].person_crop
        same = (builder.folder / "splits" / item.path).read_bytes() == before[item.path]
        assert same == (crop.crop.outcome == "whole")
        assert crop.crop.outcome == "whole" or crop.crop.mask


def test_with_both_backgrounds_masks_are_beside_the_photos(
    first: tuple[Path, BuildResult], builder: CatalogueBuilder
) -> None:
    before = {
        item.path: (builder.folder / "splits" / item.path).read_bytes() for item in first[1].items
    }
    built = run(builder, background="both")
    folder = builder.folder / "splits"
    rows = {row["path"]: row for row in pq.read_table(folder / "manifest.parquet").to_pylist()}
    masks = set()
    for item in built.items:
        # The photos are those of --background keep.
        assert (folder / item.path).read_bytes() == before[item.path]
        row = rows[item.path]
        assert item.person_crop
        if item.person_crop.crop.outcome == "whole":
            assert row["mask"] is row["mask_sha256"] is None
            continue
        mask = folder / row["mask"]
        masks.add(mask)
        assert row["mask"] == f"masks/{item.path.removesuffix('.jpg')}.png"
        assert row["mask_sha256"] == sha256_of(mask.read_bytes())
        with Image.open(mask) as opacity, Image.open(folder / item.path) as photo:
            assert (opacity.mode, opacity.size) == ("L", photo.size)
            low, high = opacity.getextrema()
            assert (low, high) == (0, 255)
    assert len(masks) >= PEOPLE - 1 and {*(folder / "masks").rglob("*.png")} == masks

    assert "`masks/` has the mask of each person" in (folder / "README.md").read_text()

    # Masks of the last build are used, unless they were changed.
    changed, same = sorted(masks)[:2]
    expected = {path: path.read_bytes() for path in masks}
    Image.new("L", (9, 9)).save(changed)
    with patch.object(rendering, "open_photo", wraps=rendering.open_photo) as opened:
        again = run(builder, background="both")
    assert again.reused == len(built.items) and opened.call_count == 1
    assert {path: path.read_bytes() for path in masks} == expected and same in masks
    # Without masks, there is no column for them.
    run(builder)
    assert "mask" not in pq.read_schema(folder / "manifest.parquet").names
    assert not (folder / "masks").exists()


def test_photos_left_whole_are_written_whole(builder: CatalogueBuilder) -> None:
    for chosen in ({"crop": "none"}, {"pose": "none"}):
        built = run(builder, **chosen)
        assert all(item.person_crop is None for item in built.items)
        row = pq.read_table(builder.folder / "splits" / "manifest.parquet").to_pylist()[0]
        assert row["crop"] is None and row["crop_box"] is None


def test_all_is_kept_of_a_photo_of_which_a_person_said_so(builder: CatalogueBuilder) -> None:
    with builder.sessions.begin() as session:
        for image, undone in ((1, None), (2, now())):
            session.add(
                CropDecision(
                    image_id=image, model="m", zone="", keep_whole=True, who="anna", undone=undone
                )
            )
    crops = {
        item.photo.image_id: item.person_crop.crop
        for item in run(builder).items
        if item.person_crop
    }
    assert (crops[1].outcome, crops[1].reason) == ("whole", BY_DECISION)
    assert crops[1].box[:2] == (0, 0) and crops[2].reason != BY_DECISION


def test_no_such_weights(builder: CatalogueBuilder) -> None:
    with pytest.raises(BadInput, match=r"none\.pth: no such file"):
        run(builder, pose_weights=Path("none.pth"))


def test_offline_the_published_weights_are_named(
    builder: CatalogueBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    done = CliRunner().invoke(
        build_dataset,
        [
            *("--catalogue", builder.catalogue, "--images", str(builder.folder / "images")),
            *("--min-per-class", "1", "--pose", "hrnet-w32", "--out", str(tmp_path / "new")),
        ],
    )
    assert done.exit_code == 1, done.output
    for part in ("81c58e40", "download.openmmlab.com", "--pose-weights", str(tmp_path / "cache")):
        assert part in done.output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pose", "none"), "--background white has no effect with --pose none"),
        (("--crop", "none"), "--background white has no effect with --crop none"),
        (("--pose", "hrnet-w32"), "the network hrnet-w32 finds no masks"),
        (
            ("--background", "both", "--format", "parquet"),
            "--background both has no effect with --format parquet",
        ),
    ],
)
def test_a_background_needs_masks(
    options: tuple[str, ...], message: str, builder: CatalogueBuilder
) -> None:
    photos = ("--catalogue", builder.catalogue, "--images", str(builder.folder / "images"))
    words = ["--background", "white", *options, *photos, "--min-per-class", "1"]
    done = CliRunner().invoke(build_dataset, [*words, "--out", str(builder.folder / "other")])
    assert done.exit_code == 2 and message in done.output.replace("\n", " ")


@pytest.mark.parametrize("option", ["--pose", "--crop"])
def test_weights_for_nobody(option: str) -> None:
    done = CliRunner().invoke(build_dataset, [option, "none", "--pose-weights", "my.pth"])
    assert done.exit_code == 2
    assert f"--pose-weights my.pth has no effect with {option} none" in done.output
