"""Fixtures of the tests of similar items."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def load_models_once(models_are_loaded_once: None) -> None:
    """Keep the networks of runs in all tests."""
