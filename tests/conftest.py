"""Fixtures of all tests: catalogues on SQLite and PostgreSQL, and cached pose networks."""

import functools
import gc
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from dataset.catalogue.session import catalogue_url, open_catalogue
from tests.support.catalogues import URL_FILE, fast_catalogues, new_catalogue
from tests.support.ray_cluster import cluster, engine

# The processes that tests start then import TensorFlow in less time; see `import_backend`.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Fixtures.
__all__ = ["cluster", "engine"]
# URL of a PostgreSQL server where tests may create databases; .ci/run starts one.
SERVER = "FASHION_TAGGER_TEST_POSTGRES"
# The slowest test files run first, so that no worker starts one at the end.
LONGEST = (
    *("test_end_to_end.py", "test_crops.py", "test_evaluation.py", "test_estimator.py"),
    *("test_preprocessing.py", "test_survival.py", "test_fetch.py", "test_exporter.py"),
    *("test_growth.py", "test_multi_label.py", "test_find_similar.py", "test_browser.py"),
    *("test_shop.py", "test_pool.py", "test_faults.py", "test_takedown.py", "test_crawl.py"),
    *("test_several_tags.py", "test_pipeline.py", "test_run_report.py", "test_fit.py"),
    *("test_repeating.py", "test_scrapy_project.py", "test_network.py", "test_inception.py"),
    *("test_train.py", "test_hostile.py", "test_lamoda.py", "test_maintenance.py"),
)
# They use the packaged pose network, which takes longer to build than most of their tests.
POSE_FILES = (
    "tests/test_end_to_end.py",
    "tests/dataset/selection/test_crops.py",
    "tests/dataset/pose/test_evaluation.py",
    "tests/dataset/pose/test_estimator.py",
    "tests/model/inference/test_preprocessing.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    """Exclude the imported modules from garbage collections, which take longer with them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, run the files that share the pose network in one worker."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = super()._split_scope(nodeid)
            return POSE_FILES[0] if path in POSE_FILES else path

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def fast_files() -> Iterator[None]:
    """Create catalogues without migrations and skip disk syncs; see `fast_catalogues`."""
    with fast_catalogues(new_catalogue()):
        yield


@pytest.fixture(scope="session", autouse=True)
def features_once() -> Iterator[None]:
    """Extract the local features of each photo once, since most tests draw the same photos."""
    from dataset.duplicates import features, pipeline, search

    @functools.lru_cache(maxsize=4096)
    def extract(mode: str, size: tuple[int, int], pixels: bytes) -> features.LocalFeatures:
        return features.extract_features(Image.frombytes(mode, size, pixels))

    def extract_features(image: Image.Image) -> features.LocalFeatures:
        grey = image.convert("L")
        return extract(grey.mode, grey.size, grey.tobytes())

    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, search):
            patch.setattr(module, "extract_features", extract_features)
        yield


@pytest.fixture(scope="session")
def load_once() -> Callable[..., Any]:
    """Return a `load_estimator` that builds each pose network once."""
    from dataset.pose import checkpoints

    once = functools.cache(checkpoints.load_estimator)
    # Normalize the arguments, so that equal calls share a cache entry.
    return lambda model, flip=False, dark=False: once(model, flip, dark)


@pytest.fixture(scope="module")
def one_estimator(load_once: Callable[..., Any]) -> Iterator[None]:
    """Use the pose networks that are built already."""
    from dataset.pose import checkpoints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "load_estimator", load_once)
        yield


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[tuple[sa.Engine, str]]:
    """Migrate a database on the PostgreSQL server, which tests copy."""
    if SERVER not in os.environ:
        pytest.skip(f"{SERVER} names no PostgreSQL server; .ci/run starts one")
    server = catalogue_url(os.environ[SERVER])
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = server.set(database=name).render_as_string(hide_password=False)
    open_catalogue(url).kw["bind"].dispose()
    yield engine, name
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Select the database of the catalogues in the test's folder."""
    if request.param == "sqlite":
        yield request.param
        return
    engine, template = request.getfixturevalue("postgres_template")
    name = f"test_{uuid.uuid4().hex}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    url = engine.url.set(database=name).render_as_string(hide_password=False)
    (tmp_path / URL_FILE).write_text(url, encoding="utf-8")
    yield request.param
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
