"""The catalogue of `review_server.filled`, filled once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from tests.support.catalogue_data import CatalogueBuilder
from tests.support.review_server import ReviewClient, filled


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the filled catalogue."""
    folder = tmp_path_factory.mktemp("review")
    filled(folder).sessions.kw["bind"].dispose()
    return folder


@pytest.fixture
def ready(made: Path, tmp_path: Path) -> CatalogueBuilder:
    """A copy of the catalogue that the test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return CatalogueBuilder(tmp_path)


@pytest.fixture
def page(ready: CatalogueBuilder, monkeypatch: pytest.MonkeyPatch) -> ReviewClient:
    """A client of the review pages on it."""
    # On a busy machine, the progress would be cached, which counts one row per decision.
    monkeypatch.setattr("dataset.review.pagination.SLOW_SECONDS", float("inf"))
    return ReviewClient(ready)
