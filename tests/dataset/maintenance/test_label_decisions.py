"""Label decisions through the command."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from dataset.catalogue.models import ImageRow, LabelDecision
from dataset.cli import build_dataset
from dataset.maintenance.cli import catalogue
from tests.dataset.test_build import run
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes


@pytest.fixture
def builder(tmp_path: Path) -> CatalogueBuilder:
    made = CatalogueBuilder(tmp_path)
    made.products("polo", 9, 0)
    made.image(photo_bytes(50), made.post("both", "polo", "jeans"))
    return made


def sha256_of_last(builder: CatalogueBuilder) -> str:
    with builder.sessions() as session:
        return (
            session.scalars(sa.select(ImageRow.sha256).order_by(ImageRow.id.desc())).first() or ""
        )


def call(builder: CatalogueBuilder, *arguments: str) -> Result:
    return CliRunner().invoke(catalogue, ["label", *arguments, "--catalogue", builder.catalogue])


def test_a_decision_is_saved_with_its_author_and_overrides_hashtags(
    builder: CatalogueBuilder,
) -> None:
    done = call(builder, sha256_of_last(builder)[:12], "поло", "--who", "anna")
    assert (done.exit_code, done.output.split()[-1]) == (0, "polo")
    with builder.sessions() as session:
        (kept,) = session.scalars(sa.select(LabelDecision))
        assert (kept.label, kept.who, kept.undone) == ("polo", "anna", None)
        assert kept.made
    assert len(run(builder).items) == 10


def test_an_image_can_be_named_by_its_file(builder: CatalogueBuilder) -> None:
    sha256 = sha256_of_last(builder)
    file = next((builder.folder / "images").rglob(f"{sha256}.jpg"))
    elsewhere = builder.folder / "photo.jpg"
    elsewhere.write_bytes(file.read_bytes())
    for name in (str(file), str(elsewhere), f"train/polo/{sha256[:24]}.jpg"):
        assert call(builder, name, "--exclude").exit_code == 0
    assert run(builder).exclusions.counts["excluded by a reviewer"] == 1


def test_a_decision_can_be_undone(builder: CatalogueBuilder) -> None:
    name = sha256_of_last(builder)
    call(builder, name, "polo")
    assert "no longer polo" in call(builder, name, "--undo").output
    assert run(builder).exclusions.counts["conflict of labels"] == 1
    again = call(builder, name, "--undo")
    assert (again.exit_code, "nothing to undo" in again.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ffffffffffff", "polo"], "no image of ffffffffffff"),
        (["abc", "polo"], "does not name an image"),
        (["ffffffffffff"], "give one of LABEL"),
        (["ffffffffffff", "polo", "--undo"], "one of LABEL, --exclude and --undo"),
    ],
)
def test_invalid_arguments_are_usage_errors(
    builder: CatalogueBuilder, arguments: list[str], message: str
) -> None:
    done = call(builder, *arguments)
    assert done.exit_code == 2
    assert message in done.output


def build(builder: CatalogueBuilder, *arguments: str, answers: str = "") -> Result:
    options = ["--min-per-class", "5", "--size", "64", "--crop", "none", *arguments]
    where = ["--catalogue", builder.catalogue, "--images", str(builder.folder / "images")]
    out = ["--out", str(builder.folder / "splits")]
    return CliRunner().invoke(build_dataset, [*options, *where, *out], input=answers)


def test_conflicts_are_decided_once(builder: CatalogueBuilder) -> None:
    done = build(builder, "--conflicts", "ask", answers="jacket\npolo\n")
    assert done.exit_code == 0, done.output
    assert "polo or jeans" in done.output
    assert "10 photos in" in done.output
    again = build(builder, "--conflicts", "ask")
    assert "polo or jeans" not in again.output


def test_conflicts_are_listed_excluded_or_the_first_label_is_taken(
    builder: CatalogueBuilder,
) -> None:
    assert "excluded 1: conflict of labels" in build(builder).output
    assert "10 photos in" in build(builder, "--conflicts", "first").output


def test_a_dry_run_writes_nothing(builder: CatalogueBuilder) -> None:
    done = build(builder, "--dry-run")
    assert "9 photos would be in" in done.output
    assert not (builder.folder / "splits").exists()


def test_clusters_are_found_listed_and_undone(builder: CatalogueBuilder) -> None:
    builder.image(photo_bytes(3, (240, 320)), builder.post("large", "polo"))
    where = ["--catalogue", builder.catalogue]
    images = ["--images", str(builder.folder / "images")]
    runner = CliRunner()
    found = runner.invoke(catalogue, ["dedup", *where, *images])
    assert "11 photos, 11 of them new: 10 clusters, 1 near duplicates" in found.output
    assert "1 clusters" in runner.invoke(catalogue, ["clusters", *where]).output
    undone = runner.invoke(catalogue, ["undo-cluster", "4", *where])
    assert "its 2 photos stay separate" in undone.output
    assert "0 clusters" in runner.invoke(catalogue, ["clusters", *where]).output
    assert "1 pairs" in runner.invoke(catalogue, ["clusters", "--possible", *where]).output


def test_conflicts_of_several_facets_are_asked_one_after_the_other(tmp_path: Path) -> None:
    builder = CatalogueBuilder(tmp_path)
    builder.products("jeans", 6, 0)
    builder.image(photo_bytes(50), builder.post("a", "jeans", "shorts", "red", "blue"))
    few = ("--multi-label", "--min-per-class", "1")
    assert "excluded 1: conflict of labels" in build(builder, *few).output
    done = build(builder, *few, "--conflicts", "ask", answers="shorts\nred\n")
    assert (done.exit_code, "7 photos in" in done.output) == (0, True), done.output
    rows = pq.read_table(builder.folder / "splits" / "manifest.parquet").to_pylist()
    assert ["shorts", "red"] in [row["labels"] for row in rows]


def test_facets_are_left_unlabelled_in_multi_label_builds_only(tmp_path: Path) -> None:
    done = build(CatalogueBuilder(tmp_path), "--conflicts", "unlabel")
    assert (done.exit_code, "--multi-label" in done.output) == (2, True)
