"""Builds on a Ray cluster: the same bytes as on one machine, whatever dies."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

import fashion_tagger
from dataset.build import build
from dataset.catalogue.models import FingerprintRow, ImageRow, PoseRow
from dataset.cli import build_dataset
from dataset.export.layout import BUILD_FILE, UNFINISHED, BuildOptions
from dataset.images.io import sha256_of
from dataset.images.store import open_store
from dataset.utils.engines import RayEngine
from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.drawing.product import draw_product
from tests.dataset.test_build import bytes_below
from tests.support.catalogue_data import CatalogueBuilder, jpeg_of
from tests.support.drawn_splits import ENVIRONMENT
from tests.support.s3_server import s3_server

PEOPLE = 36


def fill(folder: Path) -> CatalogueBuilder:
    """Fill a catalogue with drawn people, and with a photo whose file is damaged."""
    folder.mkdir()
    builder = CatalogueBuilder(folder)
    for number in range(PEOPLE + 1):
        label = ("dress", "jeans")[number % 2]
        photo = draw_product(label, 500 + number).photo
        photo.thumbnail((300, 300))
        builder.image(jpeg_of(photo, 90), builder.post(f"p{number}", label))
    with builder.sessions() as session:
        key = session.get_one(ImageRow, PEOPLE + 1).store_key
    (folder / "images" / str(key)).write_bytes(b"no image")
    return builder


def options(builder: CatalogueBuilder) -> BuildOptions:
    place = builder.folder
    return BuildOptions(builder.catalogue, place / "images", place / "splits", 5, size=96)


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
        for builder in (local, distributed)
        for session in [builder.sessions()]
    ]
    assert rows[0] == rows[1]
    assert rows[2] == rows[3]
    assert len(rows[0]) == PEOPLE


@pytest.mark.slow
def test_the_command_builds_on_a_cluster_and_goes_on_from_what_is_stored(
    cluster: Any, tmp_path: Path
) -> None:
    builder = fill(tmp_path / "catalogue")
    place = builder.folder
    arguments = [
        *("--catalogue", builder.catalogue, "--images", str(place / "images")),
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


@pytest.mark.slow
def test_a_killed_command_goes_on_and_gives_the_same_bytes(cluster: Any, tmp_path: Path) -> None:
    local, distributed = fill(tmp_path / "local"), fill(tmp_path / "distributed")
    command = [sys.executable, fashion_tagger.__file__, "build-dataset", "--engine", "ray"]
    command += ["--catalogue", distributed.catalogue, "--min-per-class", "5", "--size", "96"]
    environment = ENVIRONMENT | {"RAY_ADDRESS": cluster.address}
    # Killed in different steps; what a step has stored stays.
    for table in (FingerprintRow, PoseRow):
        process = subprocess.Popen(command, cwd=distributed.folder, env=environment)
        wait_for_row(distributed, table, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (distributed.folder / "splits").exists()
    subprocess.run(command, cwd=distributed.folder, env=environment, check=True)
    build(options(local), load_vocabulary())
    assert bytes_below(distributed.folder / "splits") == bytes_below(local.folder / "splits")


def wait_for_row(builder: CatalogueBuilder, table: Any, process: subprocess.Popen[bytes]) -> None:
    """Wait until a running command has stored a row."""
    while process.poll() is None:
        with builder.sessions() as session:
            if session.scalar(sa.select(sa.func.count()).select_from(table)):
                return
        time.sleep(0.05)
    raise AssertionError(f"the command ended with status {process.returncode}")


@pytest.mark.slow
def test_a_build_from_s3_to_s3_equals_the_local_one(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = fill(tmp_path / "local")
    arguments = ["--catalogue", local.catalogue, "--min-per-class", "5", "--size", "96"]
    arguments += ["--format", "webdataset"]
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        store, target = open_store("s3://photos/store"), open_store("s3://photos/splits", "--out")
        for key in list(local.store.keys()):
            store.put(local.store.read(key), key)
        # An earlier build, of which nothing stays, and whose copying was interrupted.
        target.put(b"", UNFINISHED)
        target.put(b"old", "train-00001-of-00002.tar")
        distributed = fill(tmp_path / "distributed")
        shutil.rmtree(distributed.folder / "images")
        remote = ["--catalogue", distributed.catalogue, "--images", "s3://photos/store"]
        remote += ["--out", "s3://photos/splits", "--engine", "ray"]
        done = CliRunner().invoke(build_dataset, [*arguments, *remote])
        assert done.exit_code == 0, done.output
        assert f"{PEOPLE} photos in s3://photos/splits" in done.output
        place = local.folder
        images = ["--images", str(place / "images"), "--out", str(place / "splits")]
        assert CliRunner().invoke(build_dataset, [*arguments, *images]).exit_code == 0
        files = {key: sha256_of(target.read(key)) for key in list(target.keys())}
        assert files.pop(BUILD_FILE)
        assert files == bytes_below(place / "splits")
        store.put(b"", "other/file")
        other = CliRunner().invoke(
            build_dataset, [*arguments, *remote, "--out", "s3://photos/store"]
        )
        assert other.exit_code == 2
        assert "has files and is not a build" in other.output
        folders = CliRunner().invoke(build_dataset, [*arguments, *remote, "--format", "folders"])
        assert folders.exit_code == 2
        assert "a URL needs a format with shards" in folders.output
    assert not list(tmp_path.glob("fashion-tagger-*"))
