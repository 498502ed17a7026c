"""Features, embeddings and tags on a Ray cluster equal those of one machine."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import Failure
from dataset.utils.engines import LOCAL_ENGINE, Engine, RayEngine
from model.data.augmentation import parse_augmentation
from model.data.feature_cache import FeatureCache
from model.data.features import FeatureExtractor, FeaturesTask, SplitFeatures, Views, ViewsJob
from model.data.loading import SplitData, load_splits
from model.network import inception
from model.similar.build import load_embedder
from model.similar.sources import FolderIndexSource
from tests.model.tag_check.test_pipeline import check, work, write_feed
from tests.support.drawn_splits import draw_splits, run_words
from tests.support.exported_runs import small_inception
from tests.support.photo_site import serving
from tests.support.saved_runs import write_run

# A fixture.
__all__ = ["work"]
COLOURS = {"polo": "red", "dress": "blue"}
VIEWS = Views(parse_augmentation(["mirror", "rotate=15"]), 3)


def extract(data: SplitData, cache: Path, engine: Engine) -> SplitFeatures:
    blocks = ("mixed0", "mixed1")
    backbone = inception.fold_batch_norms(inception.truncate(small_inception(), blocks[-1]))
    network = inception.build_feature_network(backbone, blocks)
    return FeatureExtractor(network, FeatureCache(cache, "own"), blocks, engine).extract(
        data, "train", VIEWS
    )


@pytest.mark.slow
def test_features_of_two_nodes_equal_the_local_ones(
    tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_splits(tmp_path / "splits", COLOURS)
    (tmp_path / "splits" / "train" / "dress" / "broken.png").write_bytes(b"no photo")
    monkeypatch.chdir(tmp_path)
    data = load_splits(Path("splits"))
    local = extract(data, tmp_path / "local", LOCAL_ENGINE)
    distributed = extract(data, tmp_path / "distributed", engine)
    assert (local.values == distributed.values).all()
    assert np.ptp(local.values) > 0
    assert local.examples == distributed.examples
    assert local.unreadable == distributed.unreadable
    assert list(local.unreadable) == ["train/dress/broken.png"]
    # From the cache, without workers.
    engine.close()
    assert (extract(data, tmp_path / "distributed", engine).values == local.values).all()


@pytest.mark.slow
def test_embeddings_of_two_nodes_equal_the_local_ones(tmp_path: Path, engine: RayEngine) -> None:
    draw_splits(tmp_path / "splits", COLOURS)
    (tmp_path / "splits" / "train" / "dress" / "broken.png").write_bytes(b"no photo")
    write_run(tmp_path / "run", sorted(COLOURS), ("mixed0",))
    source = FolderIndexSource(tmp_path / "splits")
    outputs, problems = [], []
    for name, runner in (("local", LOCAL_ENGINE), ("distributed", engine)):
        embedder = load_embedder(tmp_path / "run", tmp_path / name, runner)
        items = list(embedder.predict(source.entries(embedder.run.crop, runner)))
        problems.append([(item.item.id, item.problem) for item in items if item.problem])
        usable = [item for item in items if item.view]
        assert len({item.view for item in usable}) > 20
        loaded = embedder.load_outputs(usable)
        outputs.append(np.hstack([loaded.features, loaded.logits]))
    assert (outputs[0] == outputs[1]).all()
    assert problems[0] == problems[1]
    assert len(problems[0]) == 1


@pytest.mark.slow
def test_a_worker_without_the_data_folder_fails_with_a_remedy(
    tmp_path: Path, engine: RayEngine
) -> None:
    draw_splits(tmp_path / "splits", COLOURS)
    data = load_splits(tmp_path / "splits")
    task = FeaturesTask(small_inception(), tmp_path / "other", Views())
    with pytest.raises(Failure, match="file system that all machines mount"):
        list(engine.map(task, [ViewsJob(data.examples[0], "x", ["x plain"])]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_rows(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    """Assert that rows are equal; numbers may differ by rounding."""
    assert len(one) == len(other)
    for row, its in zip(one, other, strict=True):
        assert row.keys() == its.keys()
        for name, value in row.items():
            if value.replace(".", "", 1).isdecimal():
                assert float(its[name]) == pytest.approx(float(value), abs=1e-3), name
            else:
                assert its[name] == value, name


@pytest.mark.slow
def test_photos_are_tagged_on_a_cluster_as_here(tmp_path: Path, cluster: Any) -> None:
    folder = draw_splits(tmp_path / "splits", COLOURS) / "train"
    (folder / "dress" / "broken.png").write_bytes(b"no photo")
    write_run(tmp_path / "run", sorted(COLOURS), ("mixed0",))
    words = ("tag-photos", "splits/train", "--model", "run", "--threshold", "0.5")
    for name, engine in (("local.csv", "local"), ("distributed.csv", "ray")):
        done = run_words(tmp_path, *words, "--out", name, "--engine", engine)
        assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "local.csv")
    assert [row["status"] for row in rows].count("failed") == 1
    assert_equal_rows(rows, rows_of(tmp_path / "distributed.csv"))


@pytest.mark.slow
def test_tags_are_checked_on_a_cluster_as_here(work: Path, cluster: Any) -> None:
    hat = (work / "splits" / "test" / "hat" / "5.png").read_bytes()
    with serving({"/hat.png": hat, "/hat.png?other": hat}) as site:
        write_feed(work, site.url)
        words = ("feed.csv", "--fetched", "fetched", "--allow-private-hosts", "--seed", "1")
        for name in ("local", "ray"):
            done = check(work, *words, "--out", name, "--engine", name)
            assert done.returncode == 0, done.stderr
    rows = rows_of(work / "local" / "checked.csv")
    assert len(rows) > 30
    assert_equal_rows(rows, rows_of(work / "ray" / "checked.csv"))
