"""Builds on a Ray cluster: the same bytes as on one machine, whatever dies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from dataset.build import build
from dataset.catalogue.models import FingerprintRow, ImageRow, PoseRow
from dataset.cli import build_dataset
from dataset.export.build_result import BuildOptions
from dataset.utils.engines import RayEngine
from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.drawing.product import draw_product
from tests.dataset.test_build import bytes_below
from tests.support.catalogue_data import Filling, jpeg_of
from tests.support.ray_cluster import two_nodes

PEOPLE = 36


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as nodes:
        yield nodes


def fill(folder: Path) -> Filling:
    """Fill a catalogue with drawn people, and with a photo whose file is damaged."""
    folder.mkdir()
    filling = Filling(folder)
    for number in range(PEOPLE + 1):
        label = ("dress", "jeans")[number % 2]
        photo = draw_product(label, 500 + number).photo
        photo.thumbnail((300, 300))
        filling.image(jpeg_of(photo, 90), filling.post(f"p{number}", label))
    with filling.sessions() as session:
        key = session.get_one(ImageRow, PEOPLE + 1).store_key
    (folder / "images" / str(key)).write_bytes(b"no image")
    return filling


def options(filling: Filling) -> BuildOptions:
    place = filling.folder
    return BuildOptions(filling.catalogue, place / "images", place / "splits", 5, size=96)


@pytest.mark.slow
def test_a_build_of_two_nodes_equals_the_local_one(cluster: Any, tmp_path: Path) -> None:
    local, distributed = fill(tmp_path / "local"), fill(tmp_path / "distributed")
    build(options(local), load_vocabulary())
    engine = RayEngine()
    build(options(distributed), load_vocabulary(), engine)
    engine.close()
    files = bytes_below(local.folder / "splits")
    assert len(files) > PEOPLE
    assert bytes_below(distributed.folder / "splits") == files
    rows = [
        sorted(session.execute(query).all(), key=repr)
        for query in (
            sa.select(PoseRow.image_id, PoseRow.points, PoseRow.mask),
            sa.select(FingerprintRow.image_id, FingerprintRow.features, FingerprintRow.text),
        )
        for filling in (local, distributed)
        for session in [filling.sessions()]
    ]
    assert rows[0] == rows[1]
    assert rows[2] == rows[3]
    assert len(rows[0]) == PEOPLE


@pytest.mark.slow
def test_the_command_builds_on_a_cluster_and_goes_on_from_what_is_stored(
    cluster: Any, tmp_path: Path
) -> None:
    filling = fill(tmp_path / "catalogue")
    place = filling.folder
    arguments = [
        *("--catalogue", filling.catalogue, "--images", str(place / "images")),
        *("--out", str(place / "splits"), "--min-per-class", "5", "--size", "96"),
        *("--engine", "ray", "--workers", "2"),
    ]
    done = CliRunner().invoke(build_dataset, arguments)
    assert done.exit_code == 0, done.output
    assert f"{PEOPLE} photos in" in done.output
    again = CliRunner().invoke(build_dataset, arguments)
    assert f"{PEOPLE} photos are unchanged since the previous build" in again.output
    wrong = CliRunner().invoke(build_dataset, [*arguments, "--workers", "none"])
    assert wrong.exit_code == 2
    assert "'none' is not a number of workers or auto" in wrong.output
