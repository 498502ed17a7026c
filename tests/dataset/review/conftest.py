"""The catalogue of `review_server.filled`, filled once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from tests.support.catalogue_data import Filling
from tests.support.review_server import Page, filled


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the filled catalogue."""
    folder = tmp_path_factory.mktemp("review")
    filled(folder).sessions.kw["bind"].dispose()
    return folder


@pytest.fixture
def ready(made: Path, tmp_path: Path) -> Filling:
    """A copy of the catalogue that the test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Filling(tmp_path)


@pytest.fixture
def page(ready: Filling) -> Page:
    """A client of the review pages on it."""
    return Page(ready)
